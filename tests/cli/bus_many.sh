#!/usr/bin/env bash
# The broker with very many clients, and with no descriptors left for more.
. "${0%/*}/../lib/tap.sh"
bus_pid="" # set by start
many=$(helper bus_many)

rss_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

ten_thousand() {
    if [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 10100 ]; then
        skip "the hard limit on descriptors is $(ulimit -Hn)"
    fi
    start_ready bus cule-ipc bus --listen "unix:$CULE_RUN/many"
    before=$(rss_kb "$bus_pid")
    mkfifo go
    "$many" "unix:$CULE_RUN/many" 10000 >out 2>err <go &
    exec 7>go
    wait_for -t 50 'grep -q ready out || [ -s err ]'
    cat err
    idle=$(rss_kb "$bus_pid")
    echo >&7
    wait_for -t 50 'grep -q "got it" out || [ -s err ]'
    cat err
    is out "ready
went to 10000
10000 got it"
    busy=$(rss_kb "$bus_pid")
    echo "broker: $before kB alone, $idle kB with 10000 idle, $busy kB after a message to each"
    # Sanitizers hold on to what was freed and pad what was not.
    case $(cule-ipc --version) in *sanitize*) return 0 ;; esac
    [ "$TAP_SCALE" -gt 1 ] || [ "$busy" -lt 200000 ]
}
test_case '10,000 clients in below 200 MB' ten_thousand

no_descriptors() {
    start_ready bus bash -c "ulimit -n 40; exec cule-ipc bus --listen 'unix:$CULE_RUN/few'"
    export CULE_BUS="unix:$CULE_RUN/few"
    mkfifo go
    "$many" "$CULE_BUS" 60 >out 2>err <go &
    exec 7>go
    wait_for 'grep -q "descriptors" "$TAP_DIR/bus.err"'
    kill -0 "$bus_pid"
    # Those that are in are served all the same, and when one goes the next comes in.
    exec 7>&-
    kill %%
    wait_for 'cule-ipc pub x "still here" --timeout 2s'
    [ "$(grep -c descriptors "$TAP_DIR/bus.err")" = 1 ]
}
test_case 'out of descriptors: said once, goes on, recovers' no_descriptors

too_many() {
    start_ready bus cule-ipc bus --listen "unix:$CULE_RUN/max" --max-clients 1
    export CULE_BUS="unix:$CULE_RUN/max"
    start sub cule-ipc sub 'x'
    wait_for 'fails cule-ipc list --timeout 2s 2>err'
    contains err 'has its 1 clients already'
}
test_case 'one client too many is told why' too_many
tap_done
