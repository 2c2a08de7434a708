#!/usr/bin/env bash
# The broker's store: what was acknowledged is there after kill -9, after a restart, after a full disk.
. "${0%/*}/../lib/tap.sh"
bus_pid="" w_pid="" # set by start
export CULE_BUS="unix:$CULE_RUN/bus"

broker() {
    start_ready bus cule-ipc bus --listen "$CULE_BUS" --store bus.db --topic 'd/#:durability=disk' "$@"
}
stat_of() { cule-ipc stats --json | tr ',{}' '\n' | sed -n "s/^\"$1\"://p"; }

restart() {
    broker
    seq 1 1000 | cule-ipc pub d/x --format lines --ack
    cule-ipc pub d/r kept --retain --ack
    stop bus
    [ "$stopped" = 0 ]
    broker
    cule-ipc sub d/x --from 1 --count 1000 >out
    seq 1 1000 >want
    same want out
    cule-ipc sub d/r --count 1 >out
    is out kept
    cule-ipc pub d/x more --ack
    cule-ipc list topics --json >listed
    contains listed '"topic":"d/x","seq":1001'
}
test_case 'messages, numbers and retained messages outlive a restart' restart

# Publishes numbers with --ack while the broker is killed again and again: whatever pub was told is on disk.
kill_loop() {
    seq 1 4000 >numbers
    broker
    cule-ipc pub d/x --format lines --ack --timeout 60s <numbers 2>pub.err &
    pub=$!
    for i in 1 2 3 4 5 6; do
        wait_for '[ "$(stat_of stored)" -gt 50 ] || gone '"$pub"
        stop bus KILL
        broker
    done
    wait_for -t 50 gone "$pub"
    wait "$pub"
    total=$(cule-ipc list topics --json | tr ',{}' '\n' | sed -n 's/^"seq"://p' | tail -n 1)
    cule-ipc sub d/x --from 1 --count "$total" --timeout 20s >out
    sort -nu out >got
    same numbers got
}
test_case 'kill -9 in a loop: nothing that was acknowledged is lost' kill_loop

durable() {
    broker
    start w cule-ipc sub 'd/#' --group g --durable workers --count 3
    wait_for 'cule-ipc list subscriptions --json | grep -q workers'
    seq 1 10 | cule-ipc pub d/q --format lines --ack
    wait_for gone "$w_pid"
    cat "$TAP_DIR/w.out" >all
    stop bus KILL
    broker
    seq 11 12 | cule-ipc pub d/q --format lines --ack
    start_ready w cule-ipc sub 'd/#' --group g --durable workers
    wait_for '[ "$(cat all "$TAP_DIR/w.out" | sort -nu | wc -l)" = 12 ]'
    # Those that were acknowledged and committed do not come again; a few acks may have been on their way.
    [ "$(wc -l <"$TAP_DIR/w.out")" -le 12 ]
    cat all "$TAP_DIR/w.out" | sort -nu >got
    seq 1 12 >want
    same want got
}
test_case 'a durable group goes on where it was, through kill -9' durable

full() {
    # A file that may not grow beyond a limit is a disk that is full; it can be given room while the broker runs.
    need prlimit
    broker
    cule-ipc pub d/x first --ack
    prlimit --pid "$bus_pid" --fsize=$((400 * 1024)):unlimited
    head -c 20000 /dev/zero | tr '\0' x >big
    status 4 cule-ipc pub d/x --payload @big --repeat 200 --ack --timeout 10s 2>err
    contains err 'the store failed'
    contains "$TAP_DIR/bus.err" 'the store failed.*refused until it works again'
    cule-ipc call CULE health >state
    contains state 'degraded'
    status 0 cule-ipc pub memory "goes on"
    prlimit --pid "$bus_pid" --fsize=unlimited:unlimited
    wait_for 'cule-ipc call CULE health | grep -q "\"ok\""'
    cule-ipc pub d/x last --ack
    contains "$TAP_DIR/bus.err" 'the store works again' || true
    total=$(cule-ipc list topics --json | tr ',{}' '\n' | sed -n 's/^"seq"://p' | head -n 1)
    cule-ipc sub d/x --from 1 --count "$total" --format json --timeout 20s >out
    # No holes: numbers 1 to total, each once.
    sed -n 's/.*"arg1":"\([0-9]*\)".*/\1/p' out >seqs
    seq 1 "$total" >want
    same want seqs
}
test_case 'a full disk: said, refused, degraded; recovers without a hole' full

test_case 'a store in use is refused, and so is a file that is none' '
    broker
    status 6 cule-ipc bus --listen "unix:$CULE_RUN/other" --store bus.db 2>err
    contains err "in use by another process"
    head -c 5000 /dev/urandom >junk.db
    status 3 cule-ipc bus --listen "unix:$CULE_RUN/other" --store junk.db 2>err
    contains err "junk.db. is not a store of a cule-ipc bus"
'

trimmed() {
    broker --topic 'd/t:history=20'
    seq 1 500 | cule-ipc pub d/t --format lines --ack
    wait_for '[ "$(cule-ipc sub d/t --from 0 --count 20 --timeout 5s | head -n 1)" -gt 1 ]'
    cule-ipc sub d/t --last 5 --count 5 >out
    seq 496 500 >want
    same want out
}
test_case 'retention by count holds on disk too' trimmed
tap_done
