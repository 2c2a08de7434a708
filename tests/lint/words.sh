#!/usr/bin/env bash
# What must not stand in the tree: functions without limits, unfinished words, paths of one machine, stray blanks.
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"

# Unbounded, racy, or with a hidden state: the standard's own replacements exist for each.
BANNED='strcpy|strcat|stpcpy|sprintf|vsprintf|gets|strtok|atoi|atol|atoll|atof|system|popen|signal|tmpnam|tempnam|mktemp'
BANNED="$BANNED|alloca|rand|srand|usleep|asctime|ctime|gmtime|localtime|readdir_r|vfork|setjmp|longjmp"

banned() {
    # Tests and measures drive other programs and keep time by themselves.
    # shellcheck disable=SC2046
    grep_c "(^|[^A-Za-z0-9_>.])($BANNED) *\\(" code $(files 'lib/*.[ch]' 'cmd/*.[ch]' 'tests/*.[ch]') |
        grep -vE '^tests/.*(system|signal|usleep|popen) *\(|^[^:]*:[0-9]+: *(static )?(int|void) (signal|system)\(' | none
}
typedefs() {
    # shellcheck disable=SC2046
    grep_c '^ *typedef +(struct|union)' code $(files 'lib/*.[ch]' 'cmd/*.[ch]') | none
}
# The patterns are written so that they do not find themselves.
unfinished() {
    files '*' | grep -vE '^tests/fuzz/corpus/|\.(hex|bin|db|rec)$' |
        xargs -r grep -nIwE '[T]ODO|[F]IXME|[X]XX|[H]ACK|[s]tub|[n]ot implemented' /dev/null | none
}
machine() {
    files '*' | xargs -r grep -nIE '/[w]ork/|/[r]oot/|/[t]mp/(brief|b-)|/home/[a-z]+/' /dev/null | none
}
blanks() {
    {
        files '*.c' '*.h' '*.def' '*.sh' '*.py' '*.[1-9]' '*.md' Makefile 'completions/*' | grep -v '^tests/vectors/' |
            xargs -r grep -nIE '[[:blank:]]+$' /dev/null
        files '*.c' '*.h' '*.sh' '*.py' | xargs -r grep -nIP '\t' /dev/null | grep -vE '^tests/.*(awk|TSV)' |
            grep -P '^[^:]*:[0-9]+:\t'
        files '*.c' '*.h' '*.def' '*.sh' '*.py' '*.[1-9]' '*.md' Makefile | while IFS= read -r f; do
            [ ! -s "$f" ] || [ -z "$(tail -c 1 "$f")" ] || echo "$f: no newline at the end"
        done
    } | none
}
# Lower case, no full stop: what a user reads on stderr.
messages() {
    # shellcheck disable=SC2046
    grep_c 'cule_(err_set|err_sys|cli_failf|cli_warn)\(.*"[^"]*(\.|!)"[,)]' text $(files 'lib/*.c' 'cmd/*.c') |
        grep -v '\.\.\."' | none
}
deadlines() {
    files 'tests/cli/*.sh' 'tests/cluster/*.sh' | xargs -r grep -nE '^ *sleep +[0-9.]+ *$' /dev/null | none
}
negations() {
    files 'tests/cli/*.sh' 'tests/cluster/*.sh' | xargs -r grep -nE "^ *! " /dev/null | none
}

test_case 'no function that knows no limit or hides a state' banned
test_case 'no typedef of structs' typedefs
test_case 'no unfinished words' unfinished
test_case 'no paths of one machine' machine
test_case 'no stray blanks, tabs or missing newlines' blanks
test_case 'messages have no full stop' messages
test_case 'shell tests wait for a condition, they do not sleep' deadlines
test_case 'shell tests say "fails CMD": "! CMD" is ignored by set -e' negations
tap_done
