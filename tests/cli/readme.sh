#!/usr/bin/env bash
# README.md says what is so: its console blocks print what they show (numbers apart), its links lead somewhere, the
# structures that it names are in the headers that it names.
. "${0%/*}/../lib/tap.sh"
readme=$TAP_ROOT/README.md

# Block N as a script that prints what a terminal would show. A program that is started behind is waited for until it
# is ready, as somebody who types would; what such programs say on stderr is kept apart.
script_of() {
    echo 'mkfifo ready && exec 9<>ready'
    awk -v n="$1" '
        /^```console$/ { inside = ++blocks == n; next }
        /^```$/ { inside = 0 }
        !inside || !/^\$ / { next }
        { line = substr($0, 3) }
        line ~ /&$/ {
            print "export CULE_READY_FD=9\n{\n" line "\n} 2>>err"
            print "read -r -t 20 <&9\nunset CULE_READY_FD"
            next
        }
        { print "{\n" line "\n} 2>&1" }' "$readme"
}
shown_by() {
    awk -v n="$1" '
        /^```console$/ { inside = ++blocks == n; next }
        /^```$/ { inside = 0 }
        inside && !/^\$ /' "$readme"
}
numberless() { sed 's/[0-9][0-9]*/N/g'; }

block() {
    script_of "$1" >script
    bash script >out || true # some end in an error, which is shown
    shown_by "$1" | numberless >wanted
    numberless <out >got
    cat err 2>/dev/null || true
    same wanted got
}
links() {
    local path
    cd "$TAP_ROOT"
    grep -o '](\([^)]*\))' README.md | sed 's/^](//; s/)$//' | sort -u | while IFS= read -r path; do
        [ -e "$path" ] || echo "$path is not there"
    done >"$TAP_DIR/broken"
    cat "$TAP_DIR/broken"
    [ ! -s "$TAP_DIR/broken" ]
}
structures() {
    local name header
    cd "$TAP_ROOT"
    sed -n 's/.*\*\*`struct \(cule_[a-z]*\)`\*\*.*/\1/p' README.md >"$TAP_DIR/named"
    [ "$(wc -l <"$TAP_DIR/named")" -ge 7 ]
    while IFS= read -r name; do
        header=$(grep -A1 "\`struct $name\`" README.md | tr '\n' ' ' | sed "s/.*struct $name\`//; s/^[^(]*([^(]*(\([^)]*\)).*/\1/")
        grep -qE "^struct $name( \{|;)" "$header" || tap_fail "$header has no struct $name"
    done <"$TAP_DIR/named"
}

blocks=$(grep -c '^```console$' "$readme")
for ((n = 1; n <= blocks; n++)); do
    test_case "console block $n" "block $n"
done
test_case 'it has three pipelines' '[ "$blocks" = 3 ]'
test_case 'its links lead to files of the tree' links
test_case 'the structures it names are where it says' structures
tap_done
