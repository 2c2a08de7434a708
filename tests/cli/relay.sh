#!/usr/bin/env bash
# cule-ipc relay: endpoints joined.
# shellcheck disable=SC2154 # start_ready sets NAME_pid
. "${0%/*}/../lib/tap.sh"

bytes() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each 'cat; [ -z "${CULE_FD0:-}" ] || cat "/dev/fd/$CULE_FD0"'
    start_ready unix cule-ipc relay --listen "unix:$PWD/in" "unix:$PWD/app"
    head -c 1048576 /dev/urandom >big
    cule-ipc call "unix:$PWD/in" my 0x4000 --payload @big >out
    cmp big out
    echo passed >file
    cule-ipc call "unix:$PWD/in" my 0x4000 --payload 'and ' --fd file >out
    is out 'and passed'
    cule-ipc ping -c 2 -i 1ms "unix:$PWD/in" >out
    contains out 'pong from cat'
}
test_case 'Unix to Unix: bytes as they are, and descriptors' bytes

tcp() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each cat
    start_ready relay cule-ipc relay -v --listen tcp:127.0.0.1:0 "unix:$PWD/app"
    port=$(sed -n "s/.*'tcp:127.0.0.1:\([0-9]*\)'.*/\1/p" "$TAP_DIR/relay.err")
    head -c 3000000 /dev/urandom >big
    cule-ipc call "tcp:127.0.0.1:$port" my 0x4000 --stream <big >out
    cmp big out
    for i in 1 2 3 4 5 6 7 8; do
        cule-ipc call "tcp:127.0.0.1:$port" my 0x4000 --payload "n$i" >"out.$i" &
        pids[i]=$!
    done
    for i in 1 2 3 4 5 6 7 8; do
        wait "${pids[i]}"
        printf 'n%s' "$i" | cmp - "out.$i"
    done
    wait_for "[ \$(ls /proc/$relay_pid/fd | wc -l) -lt 16 ]"
}
test_case 'TCP to Unix by splice, several at once; descriptors are given back' tcp

pipes() {
    printf 'any bytes at all' | cule-ipc relay - "exec:cat" >out
    printf 'any bytes at all' | cmp - out
    printf '{"kind":"event","service":"my","op":16384}\n' | cule-ipc encode >frames
    cule-ipc relay "file:$PWD/frames" - >out </dev/null
    same frames out
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each cat
    cule-ipc call "exec:cule-ipc relay - unix:$PWD/app" my 0x4000 --payload 'by exec' >out
    printf 'by exec' | cmp - out
}
test_case 'standard input and output, files and commands' pipes

ring() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each 'cat; exit "$CULE_ARG1"'
    start_ready relay cule-ipc relay --listen "ring:$PWD/ring" "unix:$PWD/app"
    head -c 1048576 /dev/urandom >big
    cule-ipc call "ring:$PWD/ring" my 0x4000 --payload @big >out
    cmp big out
    cule-ipc call "ring:$PWD/ring" my 0x4000 --stream <big >out
    cmp big out
    status 4 cule-ipc call --json "ring:$PWD/ring" my 0x4000 --arg1 255 >out 2>err
    contains out '"arg1":"255"'
    start_ready slow cule-ipc serve --listen "unix:$PWD/slow" --each 'echo $$ >pid; exec sleep 600' --kill-grace 50ms
    start_ready relay2 cule-ipc relay --listen "ring:$PWD/ring2" "unix:$PWD/slow"
    status 5 cule-ipc call "ring:$PWD/ring2" my 0x4000 --timeout 300ms 2>err
    wait_for 'gone "$(cat pid)"'
}
test_case 'a ring on one side: frames, streams, errors, cancels' ring

gone_peer() {
    start_ready relay cule-ipc relay --listen "unix:$PWD/in" "unix:$PWD/nobody"
    status 4 cule-ipc call "unix:$PWD/in" my 0x4000 --timeout 5s 2>err
    contains "$TAP_DIR/relay.err" "cannot reach 'unix:$PWD/nobody'"
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each 'echo >began; sleep 600'
    start_ready r2 cule-ipc relay --listen "unix:$PWD/in2" "unix:$PWD/app"
    cule-ipc call "unix:$PWD/in2" my 0x4000 2>err &
    caller=$!
    wait_for '[ -e began ]'
    stop app KILL
    status 4 wait "$caller"
}
test_case 'a side that is not there, or goes away, is told to the other' gone_peer

usage() {
    status 2 cule-ipc relay - 2>err
    contains err 'two endpoints; 1 given'
    status 2 cule-ipc relay - - - 2>err
    contains err 'a third'
    start_ready relay cule-ipc relay --listen "unix:$PWD/in" exec:cat
    stop relay
    [ "$stopped" = 0 ]
    [ ! -e in ]
}
test_case 'two endpoints, no more and no fewer; SIGTERM ends it' usage

pairs() {
    start_ready relay cule-ipc relay --listen "unix:$PWD/a" --listen "unix:$PWD/b"
    cule-ipc call "exec:cule-ipc relay - unix:$PWD/a" my 0x4000 --payload met >out &
    caller=$!
    cule-ipc relay "exec:cule-ipc serve --each cat" "unix:$PWD/b" &
    wait "$caller"
    printf met | cmp - out
}
test_case 'two sides that listen: whoever comes first waits for the other' pairs

tap_done
