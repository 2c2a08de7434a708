#!/usr/bin/env bash
# cule-ipc call, send, notify and ping.
. "${0%/*}/../lib/tap.sh"

at=unix:$CULE_RUN/echo
start_ready echo cule-ipc serve --listen "$at" --each 'cat; exit "$CULE_ARG1"' --name echo

payloads() {
    printf 'a\0b\377c' >nul
    cule-ipc call "$at" my 0x4000 --payload @nul >out
    same nul out
    head -c 1048576 /dev/urandom >big
    cule-ipc call "$at" my 0x4000 --payload - <big >out
    cmp big out
    cule-ipc call "$at" my 0x4000 --payload text >out
    printf text | cmp - out
    cule-ipc call "$at" my 0x4000 --payload @@x >out
    printf @x | cmp - out
    cule-ipc call "$at" my 0x4000 >out
    [ ! -s out ]
}
test_case 'payloads of text, file and standard input come back, with NUL bytes and 1 MiB' payloads

json() {
    cule-ipc call "$at" cule echo --arg0 18446744073709551615 --arg1 0x8000000000000001 --json >out
    contains out '"arg0":"18446744073709551615"'
    contains out '"arg1":"9223372036854775809"'
    contains out '"kind":"reply"'
    cule-ipc call -v "$at" cule echo --arg0 7 >out 2>err
    contains err 'arg0 7'
}
test_case '64-bit arguments pass whole; --json shows the answer as a frame' json

errors() {
    status 3 cule-ipc call "$at" my 0x4000 --arg1 3 2>err
    contains err '^cule-ipc: the handler ended with status 3'
    status 4 cule-ipc call "$at" my 0x4000 --arg1 77 2>err
    status 8 cule-ipc call "$at" cule 0x7fff 2>err
    contains err 'has no op'
    status 4 cule-ipc call "unix:$CULE_RUN/nobody" my 0x4000 2>err
    contains err 'nobody'
    status 2 cule-ipc call "$at" my nonsense 2>err
    contains err "'nonsense'"
    status 2 cule-ipc call "$at" my 2>err
    status 2 cule-ipc call nowhere my 0x4000 2>err
    contains err 'no endpoint'
    status 1 cule-ipc call "$at" my 0x4000 --fd /does/not/exist 2>err
    contains err '/does/not/exist'
    status 4 cule-ipc call --json "$at" my 0x4000 --arg1 9 >out 2>err
    contains out '"kind":"error"'
    contains err '^\{"error":"handler"'
}
test_case 'an error is told on stderr, its code is the exit status' errors

bus_variable() {
    CULE_BUS=$at cule-ipc call my 0x4000 --payload there >out
    printf there | cmp - out
    ln -s "$CULE_RUN/echo" "$CULE_RUN/bus"
    cule-ipc call my 0x4000 --payload there >out
    rm "$CULE_RUN/bus"
    printf there | cmp - out
}
test_case 'where ENDPOINT is left out it is CULE_BUS, else the bus in CULE_RUN' bus_variable

timeout_case() {
    start_ready slow cule-ipc serve --listen "unix:$PWD/slow" --each 'sleep 60'
    begin=${EPOCHREALTIME/./}
    status 5 cule-ipc call "unix:$PWD/slow" my 0x4000 --timeout 200ms 2>err
    [ $((${EPOCHREALTIME/./} - begin)) -lt 10000000 ]
    contains err 'no answer in time'
    # A peer that accepts and never says a word.
    python3 -c '
import socket, sys, os, time
s = socket.socket(socket.AF_UNIX); s.bind("mute"); s.listen(); open("listening", "w").close(); time.sleep(60)' &
    wait_for '[ -e listening ]'
    status 5 cule-ipc call "unix:$PWD/mute" my 0x4000 --timeout 200ms 2>err
}
test_case '--timeout is an error and a status of its own, also where nobody answers at all' timeout_case

streams() {
    start_ready up cule-ipc serve --listen "unix:$PWD/up" --each 'tr a-z A-Z' --stream
    printf 'one\ntwo\n' | cule-ipc call "unix:$PWD/up" my 0x4000 --payload 'zero ' --stream >out
    printf 'ZERO ONE\nTWO\n' | cmp - out
    # The answer is there before the request has ended.
    start_ready cat cule-ipc serve --listen "unix:$PWD/cat" --each 'cat' --stream
    mkfifo in2
    cule-ipc call "unix:$PWD/cat" my 0x4000 --stream --lines <in2 >now2 &
    caller=$!
    exec 7>in2
    echo first >&7
    wait_for 'grep -q first now2'
    echo second >&7
    wait_for 'grep -q second now2'
    exec 7>&-
    wait "$caller"
    printf 'first\nsecond\n' | cmp - now2
    head -c 3000000 /dev/urandom >big
    cule-ipc call "unix:$PWD/cat" my 0x4000 --stream <big >out
    cmp big out
}
test_case '--stream sends standard input as it comes and writes the answer as it comes' streams

slow_reader() {
    start_ready zero cule-ipc serve --listen "unix:$PWD/z" --each 'head -c 200000000 /dev/zero; echo done >&2'
    mkfifo out
    cule-ipc call "unix:$PWD/z" my 0x4000 >out &
    exec 6<out
    head -c 1000 <&6 | wc -c >n
    is n 1000
    # Nothing is read any more: the handler must be stopped by back pressure, not buffered without end.
    # shellcheck disable=SC2154 # start_ready sets it
    rss() { awk '/^VmRSS/ { print $2 }' "/proc/$zero_pid/status"; }
    sent() { cule-ipc call "unix:$PWD/z" cule stats | grep -o '"bytes_out_total":[0-9]*'; }
    wait_for '[ "$(sent)" = "$(sent)" ] && [ "$(sent)" = "$(sent)" ]'
    [ "$(rss)" -lt 60000 ]
    cat <&6 | wc -c >n
    [ "$(cat n)" -gt 190000000 ]
}
test_case 'a caller who does not read holds the handler, and memory stays bounded' slow_reader

descriptors() {
    echo 'what is in the file' >file
    start_ready fd cule-ipc serve --listen "unix:$PWD/fd" --each 'cat "/dev/fd/$CULE_FD0"; cat "/dev/fd/$CULE_FD1"; echo "$CULE_FDS"'
    cule-ipc call "unix:$PWD/fd" my 0x4000 --fd file --fd fd:5 5<<<inherited >out
    printf 'what is in the file\ninherited\n2\n' | cmp - out
    start_ready tcp cule-ipc serve --listen tcp:127.0.0.1:0 --log-level info --each cat
    port=$(sed -n "s/.*'tcp:127.0.0.1:\([0-9]*\)'.*/\1/p" "$TAP_DIR/tcp.err")
    status 8 cule-ipc call "tcp:127.0.0.1:$port" my 0x4000 --fd file 2>err
    contains err 'descriptors'
}
test_case 'descriptors pass over Unix sockets, and are refused elsewhere' descriptors

one_way() {
    start_ready file cule-ipc serve --listen "unix:$PWD/file" --each '{ printf "%s %s %s " "$CULE_KIND" "$CULE_OP" "$CULE_ARG0"; cat; echo; } >>"$PWD/seen"'
    cule-ipc send "unix:$PWD/file" my 0x4001 --arg0 5 --payload body
    wait_for '[ "$(wc -l <seen)" = 1 ]'
    cule-ipc notify "unix:$PWD/file" my 0x4002 --arg0 6
    wait_for '[ "$(wc -l <seen)" = 2 ]'
    printf 'event 16385 5 body\nevent 16386 6 \n' | cmp - seen
    cule-ipc send - my 0x4001 --payload piped --count 3 | cule-ipc decode --json >out
    [ "$(grep -c '"payload_text":"piped"' out)" = 3 ]
    lacks out hello
    cule-ipc send "file:$PWD/kept" my 0x4001 --payload kept
    cule-ipc decode --json kept >out
    contains out '"kind":"event".*kept'
}
test_case 'send and notify are one-way, to a link, a pipe and a file' one_way

pings() {
    cule-ipc ping -c 3 -i 1ms "$at" >out
    [ "$(grep -c '^pong from echo (unix): seq=' out)" = 3 ]
    contains out '3 sent, 3 received, 0 % lost'
    contains out 'round trip min/mean/p50/p99/max'
    cule-ipc ping --json -c 2 -i 1ms "$at" >out
    contains out '"sent":2,"received":2,"min_us":'
    status 4 cule-ipc ping -c 1 "unix:$CULE_RUN/nobody" 2>err
}
test_case 'ping counts round trips and tells their statistics' pings

tracing() {
    cule-ipc call "$at" my 0x4000 --trace 2>err
    contains err '^cule-ipc: trace 00-[0-9a-f]{32}-[0-9a-f]{16}-01$'
    start_ready env cule-ipc serve --listen "unix:$PWD/env" --each 'printf %s "$CULE_TRACEPARENT"'
    id=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    cule-ipc call "unix:$PWD/env" my 0x4000 --traceparent "$id" >out
    printf %s "$id" | cmp - out
    # A handler that calls goes on with the trace that it is part of.
    start_ready outer cule-ipc serve --listen "unix:$PWD/outer" --each "cule-ipc call unix:$PWD/env my 0x4000"
    cule-ipc call "unix:$PWD/outer" my 0x4000 --traceparent "$id" >out
    printf %s "$id" | cmp - out
    status 2 cule-ipc call "$at" my 0x4000 --traceparent nonsense 2>err
}
test_case 'a trace begins with --trace and goes on through handlers that call' tracing

tap_done
