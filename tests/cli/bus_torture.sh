#!/usr/bin/env bash
# The broker's core with each allocation failing in turn, over the recorded steps of its fuzz target.
# timeout: 200
. "${0%/*}/../lib/tap.sh"
TAP_TIMEOUT=120
case ${BUILD:-release} in
    asan | tsan | fuzz) skip_all 'a sanitizer has its own malloc' ;;
esac

for seed in pubsub disk block request watch ack; do
    # shellcheck disable=SC2016 # expanded in the case
    test_case "no allocation is taken for granted: $seed" '
        export O=$TAP_O
        mkdir one
        cp "$TAP_ROOT/tests/fuzz/corpus/bus/'"$seed"'" one
        "$TAP_ROOT/tests/lib/torture.sh" -n 400 "$TAP_O/corpus/bus" one | tee report
        contains report "^torture: (the first )?[1-9][0-9]* allocations failed"
    '
done
tap_done
