# shellcheck shell=bash
# Which files are ours: for lint scripts, after tap.sh. Works in a clone and in an unpacked archive.
TAP_CWD=$TAP_ROOT
cd "$TAP_ROOT" || exit 1

# The files of the tree that match one of the patterns (git's, or find's names where there is no git).
files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -co --exclude-standard -- "$@" | sort -u | while IFS= read -r f; do
            if [ -f "$f" ]; then echo "$f"; fi
        done
    else
        find . -path ./build -prune -o -type f -print | sed 's|^\./||' | sort | while IFS= read -r f; do
            for p in "$@"; do
                # shellcheck disable=SC2053 # a pattern is meant
                if [[ $f == $p ]]; then echo "$f" && break; fi
            done
        done
    fi
}

# A C file without its comments, line for line.
uncommented() {
    awk '{
        out = ""
        line = $0
        while (line != "") {
            if (inside) {
                i = index(line, "*/")
                if (!i) { line = ""; break }
                line = substr(line, i + 2)
                inside = 0
            } else if (match(line, /^("([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047)/)) {
                out = out substr(line, 1, RLENGTH)
                line = substr(line, RLENGTH + 1)
            } else if (substr(line, 1, 2) == "/*") { inside = 1; line = substr(line, 3) }
            else if (substr(line, 1, 2) == "//") line = ""
            else { out = out substr(line, 1, 1); line = substr(line, 2) }
        }
        print out
    }' "$1"
}

# Prints FILE:LINE: for the lines of C files ($3…) that match $1, comments and strings aside when $2 is "code".
grep_c() {
    local regex=$1 how=$2 f
    shift 2
    for f in "$@"; do
        uncommented "$f" | if [ "$how" = code ]; then sed 's/"\([^"\\]\|\\.\)*"/""/g'; else cat; fi |
            grep -nE -- "$regex" | sed "s|^|$f:|"
    done
    return 0
}

# Fails when standard input has a line, which is shown.
none() {
    local found
    found=$(cat)
    [ -z "$found" ] || tap_fail "$found"
}
