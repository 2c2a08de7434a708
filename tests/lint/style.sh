#!/usr/bin/env bash
# The formatters and checkers: clang-format (.clang-format), shellcheck, shfmt -i 4 -ci. Every header compiles alone.
# timeout: 300
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"
TAP_TIMEOUT=200

formatted() {
    need clang-format
    files '*.c' '*.h' | while IFS= read -r f; do
        clang-format "$f" | cmp -s "$f" - || echo "$f: clang-format -i would change it"
    done | none
}

scripts() {
    files 'tests/*.sh' 'examples/*.sh' 'completions/generate' '.ci/*' 'examples/*' | sort -u | while IFS= read -r f; do
        if head -n 2 "$f" | grep -qE '^#!.*\b(ba)?sh\b|shellcheck shell='; then echo "$f"; fi
    done
}
checked() {
    need shellcheck
    # Bodies of cases are text in single quotes, and what sourced files set looks unused.
    scripts | xargs -r shellcheck -x -P SCRIPTDIR -e SC1091,SC2016,SC2034,SC2317 -f gcc
}
shell_formatted() {
    need shfmt
    scripts | xargs -r shfmt -i 4 -ci -d
}

# -fsyntax-only on a file that includes the header and nothing else.
self_contained() {
    local uv
    uv=$(pkg-config --cflags libuv sqlite3 libsodium gnutls)
    files 'lib/*.h' | while IFS= read -r f; do
        # shellcheck disable=SC2086
        echo "#include \"${f#lib/}\"" | "${CC:-gcc}" -std=gnu11 -Wall -Wextra -D_GNU_SOURCE -DCULE_VERSION='""' -Ilib $uv \
            -fsyntax-only -x c - 2>"$TAP_DIR/err" ||
            { echo "$f:" && head -n 5 "$TAP_DIR/err"; }
    done >"$TAP_DIR/alone"
    none <"$TAP_DIR/alone"
}
guarded() {
    files 'lib/*.h' 'cmd/*.h' | while IFS= read -r f; do
        grep -qE '^#ifndef CULE_[A-Z0-9_]+_H$' "$f" || echo "$f: no include guard of the form CULE_…_H"
    done | none
}

test_case 'C is formatted' formatted
test_case 'shellcheck finds nothing' checked
test_case 'shell is formatted' shell_formatted
test_case 'every header compiles alone' self_contained
test_case 'every header has its guard' guarded
tap_done
