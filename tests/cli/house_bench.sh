#!/usr/bin/env bash
# tests/bench/run.sh over measures made up here: the table, JSON, absent peers, missed targets, the floor first.
. "${0%/*}/../lib/tap.sh"

bench() {
    mkdir -p "tests/bench" o/bench
    cp "$TAP_ROOT/tests/bench/run.sh" tests/bench/
    printf '#!/bin/sh\n%s\n' "$2" >"o/bench/$1"
    chmod +x "o/bench/$1"
    : >"tests/bench/$1.c"
}
line() {
    printf "echo '{\"name\":\"%s\",\"value\":%s,\"unit\":\"ns\",\"peer\":\"zmq\",\"peer_value\":%s,\"ratio\":%s,\"target\":%s}'\n" "$@"
}
run() {
    code=0
    O=$PWD/o tests/bench/run.sh "$@" >out 2>err || code=$?
}
table() {
    bench a "$(line rtt 123.456 1000 8.1 3)"
    bench floor "$(line floor 50 null null null)"
    run
    [ "$code" = 0 ]
    contains out '^rtt +123\.5 ns +zmq +1000 +8\.1 x +3 x +ok$'
    contains out '^floor +50 ns +zmq +not installed +- +- +-$'
    [ "$(grep -nE '^floor' out | cut -d: -f1)" -lt "$(grep -nE '^rtt' out | cut -d: -f1)" ]
}
missed() {
    bench a "$(line rtt 5 10 2 3)"
    run
    [ "$code" = 1 ]
    contains out 'miss$'
}
json() {
    bench a "$(line rtt 5 10 2 1)"
    bench b "$(line other 5 10 2 1)"
    run --json b
    [ "$code" = 0 ]
    jq -se 'length == 1 and .[0].name == "other"' out
}
broken() {
    bench a 'echo starting; exit 0'
    run
    [ "$code" = 4 ]
    contains err 'no measure: starting'
    bench a 'echo why >&2; exit 3'
    run
    [ "$code" = 4 ]
    contains err 'a failed with status 3'
    contains err why
    rm o/bench/a
    run
    [ "$code" = 4 ]
    contains err 'not built'
}
absent() {
    bench a "$(line rtt 5 10 2 1)"
    bench z 'exit 0'
    rm o/bench/z
    echo '#include <no-such-peer.h>' >tests/bench/z.c
    run
    [ "$code" = 4 ] # unknown headers are no peers: the program should have been built
    sed -i 's|/usr/include/|/nowhere/|' tests/bench/run.sh
    echo '#include <zmq.h>' >tests/bench/z.c
    run
    [ "$code" = 0 ]
    contains out '^z +- +- +zmq +not installed'
}

test_case 'one line a measure, the floor first' table
test_case 'a missed target is status 1' missed
test_case '--json passes objects on, names choose programs' json
test_case 'a broken measure is status 4 and said' broken
test_case 'a program whose peer is not installed is reported' absent
tap_done
