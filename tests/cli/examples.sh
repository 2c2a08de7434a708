#!/usr/bin/env bash
# The stories in examples/ print what they say they print (the comment behind "# Prints:" at their end), end by
# themselves, are short, and leave no process and no file behind.
. "${0%/*}/../lib/tap.sh"

story() {
    local f=$1 code=0
    mkdir tmp
    TMPDIR=$PWD/tmp PATH=$PATH "$f" >out 2>err || code=$?
    [ "$code" != 77 ] || skip "${f##*/} says that it cannot run here"
    cat err
    [ "$code" = 0 ]
    sed '1,/^# Prints:$/d; s/^# \{0,1\}//' "$f" >expected
    [ -s expected ]
    same expected out
    [ -z "$(ls tmp)" ]
    fails grep -lzsF "CULE_RUN=$PWD/tmp/" /proc/[0-9]*/environ
}
short() {
    local f
    for f in "$TAP_ROOT"/examples/[0-9]*.sh; do
        [ "$(wc -l <"$f")" -lt 60 ] || tap_fail "$f has 60 lines or more"
    done
    [ "$(wc -l <"$TAP_ROOT/examples/cule_frame.py")" -lt 80 ]
}

for f in "$TAP_ROOT"/examples/[0-9]*.sh; do
    test_case "${f##*/}: $(sed -n '2s/^# //p' "$f" | cut -c1-80 | tr '#' ' ')" "story '$f'"
done
test_case 'examples are short' short
tap_done
