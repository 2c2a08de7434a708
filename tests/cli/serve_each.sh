#!/usr/bin/env bash
# cule-ipc serve --each: a process for each request; and what every mode has in common.
. "${0%/*}/../lib/tap.sh"

environment() {
    start_ready env cule-ipc serve --listen "unix:$PWD/s" --each 'env | grep ^CULE_ | sort'
    CULE_READY_FD='' cule-ipc call "unix:$PWD/s" stor read --arg0 18446744073709551615 --arg1 7 --priority high \
        --cap 0x0001000200000003 >out
    for line in KIND=request SERVICE=STOR OP=3 OP_NAME=read ARG0=18446744073709551615 ARG1=7 PRIORITY=high \
        CAP=0x0001000200000003 "PEER_UID=$(id -u)" "PEER_GID=$(id -g)" 'PEER_NAME=cule-ipc call' PEER_ADDRESS=unix; do
        grep -qx "CULE_$line" out
    done
    contains out '^CULE_PEER_PID=[1-9]'
    contains out '^CULE_DEADLINE_MS=29[0-9]{3}$'
    lacks out CULE_READY_FD
    cule-ipc call "unix:$PWD/s" bus publish --arg0 3 --payload 'a/bbody' >out
    contains out '^CULE_TOPIC=a/b$'
}
test_case 'the header is in CULE_* variables' environment

verdicts() {
    start_ready v cule-ipc serve --listen "unix:$PWD/s" --each 'echo "so it goes: $CULE_ARG0" >&2; echo lost; exit "$CULE_ARG0"' --name judge
    for n in 1 2 3 4 5 6 7 8; do
        status "$n" cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 "$n" >out 2>err
        is err "cule-ipc: so it goes: $n"
        [ ! -s out ]
    done
    status 4 cule-ipc call --json "unix:$PWD/s" my 0x4000 --arg0 200 >out 2>err
    contains out '"arg0":"27","arg1":"200"'
    contains "$TAP_DIR/v.err" '^judge\[[0-9]+\]: so it goes: 200$'
    start_ready k cule-ipc serve --listen "unix:$PWD/k" --each 'kill -9 $$'
    status 4 cule-ipc call "unix:$PWD/k" my 0x4000 2>err
    contains err 'ended by signal 9'
    start_ready n cule-ipc serve --listen "unix:$PWD/n" --each '/does/not/exist'
    status 4 cule-ipc call "unix:$PWD/n" my 0x4000 2>err
    contains err 'not found'
}
test_case 'the exit status is the verdict, stderr the reason' verdicts

# A handler whose work is done by a grandchild that left its session and its parent.
runaway='python3 -c "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(\"pid.new\", \"w\").write(str(os.getpid())); os.rename(\"pid.new\", \"pid\")
        time.sleep(600)
    os._exit(0)
time.sleep(600)"'

cancel() {
    need python3
    start_ready c cule-ipc serve --listen "unix:$PWD/s" --each "$runaway" --kill-grace 100ms
    cule-ipc call "unix:$PWD/s" my 0x4000 2>/dev/null &
    caller=$!
    wait_for '[ -s pid ]'
    kill -0 "$(cat pid)"
    kill "$caller"
    wait_for "gone $(cat pid)"
    rm pid
    # The same when the deadline passes.
    status 5 cule-ipc call "unix:$PWD/s" my 0x4000 --timeout 1s 2>err
    wait_for "gone $(cat pid)"
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"active\":0"'
    cule-ipc call "unix:$PWD/s" cule stats >counted
    contains counted '"cancelled_total":1,"timeouts_total":1'
}
test_case 'cancel and deadline kill the whole tree, a double-forked setsid grandchild too' cancel

own_deadline() {
    start_ready d cule-ipc serve --listen "unix:$PWD/s" --each 'sleep 600' --timeout 200ms
    status 5 cule-ipc call "unix:$PWD/s" my 0x4000 --timeout 0 2>err
    contains err 'the server allows'
}
test_case '--timeout ends requests that have no deadline of their own' own_deadline

queue() {
    mkfifo gate
    start_ready q cule-ipc serve --listen "unix:$PWD/s" --each 'echo started >>order; read -r line <gate; echo "$CULE_ARG0" >>order' -j 1 --queue 2
    exec 7<>gate
    cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 1 &
    a=$!
    wait_for 'grep -q started order'
    cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 2 --priority low &
    b=$!
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"queued\":1"'
    cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 3 --priority critical &
    c=$!
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"queued\":2"'
    status 6 cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 4 2>err
    contains err '2 requests wait already, the limit \(--queue\)'
    cule-ipc call "unix:$PWD/s" cule health >state
    contains state 'degraded'
    for _ in 1 2 3; do echo go >&7; done
    wait "$a" "$b" "$c"
    grep -v started order >ended
    printf '1\n3\n2\n' | cmp - ended
    exec 7>&-
}
test_case 'the queue has a limit, and the critical go first' queue

large() {
    start_ready l cule-ipc serve --listen "unix:$PWD/s" --each 'cat; head -c 3000000 /dev/zero'
    head -c 1048576 /dev/urandom >big
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload @big >out
    {
        cat big
        head -c 3000000 /dev/zero
    } | cmp - out
    cule-ipc call --json "unix:$PWD/s" my 0x4000 --payload @big | head -n 1 >first
    contains first '"kind":"reply","flags":\["open"\]'
    # One that does not read its input is none the worse for it.
    start_ready i cule-ipc serve --listen "unix:$PWD/i" --each 'echo ignored'
    cule-ipc call "unix:$PWD/i" my 0x4000 --payload @big >out
    is out ignored
}
test_case 'an answer of more than 64 KiB is streamed; input may be ignored' large

half_stream() {
    start_ready h cule-ipc serve --listen "unix:$PWD/s" --each 'echo part; sleep 0.2; echo broken >&2; exit 9' --stream
    status 4 cule-ipc call "unix:$PWD/s" my 0x4000 >out 2>err
    is out part
    contains err broken
}
test_case 'a stream that fails half way ends in its error' half_stream

services() {
    start_ready s cule-ipc serve --listen "unix:$PWD/s" --listen "unix:$PWD/two" --each cat --service my --service stor --name shop
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload x >out
    cule-ipc call "unix:$PWD/two" stor read --payload x >out
    status 8 cule-ipc call "unix:$PWD/s" http 0x4000 2>err
    contains err "'shop' does not serve 'HTTP'"
    cule-ipc call "unix:$PWD/s" cule info >out
    contains out '"name":"shop".*"services":\["my","stor"\]'
    cule-ipc call "unix:$PWD/s" cule health >out
    printf '{"state":"ok","reason":""}' | cmp - out
    cule-ipc call "unix:$PWD/s" cule ops >out
    contains out '"name":"trace-on"'
    cule-ipc call "unix:$PWD/s" cule stats --arg0 1 >out
    contains out '^cule_serve_refused_total 1$'
    contains out '^# TYPE cule_serve_active gauge$'
    cule-ipc call -v "unix:$PWD/s" cule log-set --arg0 3 2>err
    contains err 'arg0 1'
    cule-ipc call -v "unix:$PWD/s" cule log-get 2>err
    contains err 'arg0 3'
    status 3 cule-ipc call "unix:$PWD/s" cule log-set --arg0 9 2>err
}
test_case '--service restricts what is answered; every service answers CULE' services

drain() {
    start_ready d cule-ipc serve --listen "unix:$PWD/s" --each 'echo >begun; sleep 0.5; echo done'
    cule-ipc call "unix:$PWD/s" my 0x4000 >out &
    caller=$!
    wait_for '[ -e begun ]'
    stop d
    [ "$stopped" = 0 ]
    wait "$caller"
    is out 'done'
    [ ! -e s ]
    start_ready g cule-ipc serve --listen "unix:$PWD/s" --each 'echo >begun2; sleep 600' --grace 200ms --kill-grace 100ms
    cule-ipc call "unix:$PWD/s" my 0x4000 2>err &
    caller=$!
    wait_for '[ -e begun2 ]'
    stop g
    [ "$stopped" = 5 ]
    status 6 wait "$caller"
    contains err 'is stopping'
}
test_case 'SIGTERM finishes what was begun, to a limit; the socket file goes' drain

stdio() {
    printf '{"kind":"request","service":"my","op":16384,"id":"1","payload_text":"via pipe"}\n' | cule-ipc encode |
        cule-ipc serve --each 'tr a-z A-Z' | cule-ipc decode --json --filter kind=reply >out
    contains out 'VIA PIPE'
    cule-ipc call "exec:cule-ipc serve --each cat" my 0x4000 --payload 'one exec' >out
    printf 'one exec' | cmp - out
    status 2 cule-ipc serve 2>err
    contains err 'one of --each, --lines and --frames'
    status 2 cule-ipc serve --each a --lines b 2>err
    status 2 with_tty 'cule-ipc serve --each cat' >out
}
test_case 'without --listen standard input and output are the link' stdio

many() {
    start_ready m cule-ipc serve --listen "unix:$PWD/s" --each 'cat' -j 8
    for i in $(seq 40); do
        cule-ipc call "unix:$PWD/s" my 0x4000 --payload "number $i" >"out.$i" &
        pids[i]=$!
    done
    for i in $(seq 40); do
        wait "${pids[i]}"
        printf 'number %s' "$i" | cmp - "out.$i"
    done
    wait_for '[ "$(ls "/proc/$m_pid/fd" | wc -l)" -lt 20 ]'
    # A listener that is killed leaves nothing behind that another could not replace.
    stop m KILL
    start_ready m cule-ipc serve --listen "unix:$PWD/s" --each 'cat'
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload again >out
}
test_case 'forty callers at once; descriptors are given back' many

readiness() {
    need python3
    python3 -c '
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind("notify"); s.settimeout(30)
open("bound", "w").close()
for _ in range(2): print(s.recv(100).decode(), end="", flush=True)' >told &
    listener=$!
    wait_for '[ -e bound ]'
    NOTIFY_SOCKET=$PWD/notify start_ready n cule-ipc serve --listen "unix:$PWD/s" --each 'env | grep NOTIFY || echo hidden'
    cule-ipc call "unix:$PWD/s" my 0x4000 >out
    is out hidden
    stop n
    wait "$listener"
    printf 'READY=1\nSTOPPING=1\n' | cmp - told
}
test_case 'NOTIFY_SOCKET is told of readiness and of stopping' readiness

tap_done
