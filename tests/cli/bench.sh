#!/usr/bin/env bash
# bench: every carrier gives figures that can be; peers that are there are measured, others are named.
. "${0%/*}/../lib/tap.sh"

plausible='.p50_us > 0 and .p50_us <= .p90_us and .p90_us <= .p99_us and .p99_us <= .p99_9_us and .p99_9_us <= .p99_99_us
    and .p99_99_us <= .max_us and .count == 500 and .messages_per_s > 1000 and .histogram[-1][1] == 500'

carrier() {
    cule-ipc bench --endpoint "$1" --count 500 --json >out
    jq -e "$plausible" out
}
test_case 'pipe' 'carrier pipe'
test_case 'unix' 'carrier unix'
test_case 'ring' 'carrier ring'
test_case 'tcp' 'carrier tcp'
test_case 'bus' 'carrier bus'

test_case 'an endpoint where a program answers' '
    start_ready bus cule-ipc bus --listen "unix:$CULE_RUN/bus"
    cule-ipc bench --endpoint "unix:$CULE_RUN/bus" --count 100 --round-trips --json >out
    jq -e ".p50_us > 0 and .messages_per_s == null" out
'

test_case 'large messages' '
    cule-ipc bench --endpoint unix --count 50 --size 300K --json >out
    jq -e ".size == 307200 and .bytes_per_s > 1000000" out
'

test_case 'text has percentiles and a picture' '
    cule-ipc bench --endpoint unix --count 500 >out
    contains out "p50_us [0-9.]+ p90_us .* p99_99_us [0-9.]+ max_us"
    contains out "us \|#+"
    contains out "messages/s"
'

test_case 'a peer is measured where it is installed, and named where it is not' '
    cule-ipc bench --count 200 --round-trips --json --peer zmq,nng,nats >out 2>err
    for p in zmq nng nats; do
        jq -es "any(.[]; .peer == \"$p\" and .p50_us > 0 and .times_ours > 0)" out || contains err "$p.*not installed"
    done
    status 2 cule-ipc bench --count 1 --peer nobody 2>err
    contains err "nobody"
'

test_case 'no socket is left behind, no process either' '
    mkdir t
    TMPDIR=$PWD/t cule-ipc bench --endpoint bus --count 10 >/dev/null
    TMPDIR=$PWD/t cule-ipc bench --endpoint ring --count 10 >/dev/null
    [ -z "$(ls t)" ]
'

test_case 'mistakes: status 2' '
    status 2 cule-ipc bench --endpoint carrier-pigeon 2>err
    contains err "cannot measure"
    status 2 cule-ipc bench --count 0 2>err
'

tap_done
