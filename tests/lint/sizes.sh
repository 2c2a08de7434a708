#!/usr/bin/env bash
# Files of at most 600 lines, functions of at most 70. What is generated may be longer and says so in its first line.
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"

FILE_LINES=600
FUNCTION_LINES=70

long_files() {
    files '*.c' '*.h' '*.sh' '*.py' Makefile | while IFS= read -r f; do
        head -n 1 "$f" | grep -qi generated && continue
        n=$(wc -l <"$f")
        [ "$n" -le "$FILE_LINES" ] || echo "$f: $n lines"
    done | none
}

# A function stands between braces in the first column; its head above counts from its name on.
long_functions() {
    files '*.c' '*.h' | while IFS= read -r f; do
        awk -v f="$f" -v max="$FUNCTION_LINES" '
            /^[a-z].*\(/ { head = $0; at = NR }
            /^\{/ { start = NR }
            /^\}/ && start {
                if (NR - start - 1 > max) { sub(/\(.*/, "", head); print f ":" at ": " head ": " NR - start - 1 " lines" }
                start = 0
            }' "$f"
    done | none
}

# The first line or two of a .c file say what it is.
opening() {
    files 'lib/*.c' 'cmd/*.c' 'tests/*.c' 'lib/*.h' | while IFS= read -r f; do
        head -n 1 "$f" | grep -qE '^(/\*|//)' || echo "$f: does not open with a sentence"
    done | none
}

test_case "no file is longer than $FILE_LINES lines" long_files
test_case "no function is longer than $FUNCTION_LINES lines" long_functions
test_case 'every source file opens with a sentence' opening
tap_done
