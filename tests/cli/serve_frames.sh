#!/usr/bin/env bash
# cule-ipc serve --frames: persistent workers that speak frames. The worker here is cule-ipc serve --each.
# shellcheck disable=SC2154 # start_ready sets NAME_pid
. "${0%/*}/../lib/tap.sh"

worker() { echo "exec cule-ipc serve --name worker --each '$1'"; }

basics() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 2 --frames "$(worker 'cat; exit "$CULE_ARG1"')"
    {
        head -c 1048576 /dev/urandom
        printf '\0\377'
    } >big
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload @big >out
    cmp big out
    status 4 cule-ipc call --json "unix:$PWD/s" my 0x4000 --arg1 77 >out 2>err
    contains out '"arg0":"27","arg1":"77"'
    start_ready e cule-ipc serve --listen "unix:$PWD/e" --workers 1 --frames "$(worker 'env')"
    cule-ipc call "unix:$PWD/e" stor read --arg0 18446744073709551615 --priority high \
        --traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 >out
    contains out '^CULE_ARG0=18446744073709551615$'
    contains out '^CULE_PRIORITY=high$'
    contains out '^CULE_TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01$'
    contains out '^CULE_DEADLINE_MS=29[0-9]{3}$'
}
test_case 'requests pass with arguments, priority, trace and what is left of the deadline' basics

streams() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 --frames "exec cule-ipc serve --stream --each cat"
    mkfifo in
    cule-ipc call "unix:$PWD/s" my 0x4000 --stream --lines <in >out &
    caller=$!
    exec 7>in
    echo one >&7
    wait_for 'grep -q one out'
    echo two >&7
    wait_for 'grep -q two out'
    exec 7>&-
    wait "$caller"
    head -c 5000000 /dev/urandom >big
    cule-ipc call "unix:$PWD/s" my 0x4000 --stream <big >out
    cmp big out
}
test_case 'streams pass both ways at once' streams

descriptors() {
    echo 'in the file' >file
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 --frames "$(worker 'cat "/dev/fd/$CULE_FD0"')"
    cule-ipc call "unix:$PWD/s" my 0x4000 --fd file >out
    is out 'in the file'
    fds=$(find "/proc/$w_pid/fd" -mindepth 1 | wc -l)
    for _ in 1 2 3 4 5; do cule-ipc call "unix:$PWD/s" my 0x4000 --fd file >out; done
    wait_for "[ \$(find /proc/$w_pid/fd -mindepth 1 | wc -l) -le $fds ]"
}
test_case 'descriptors pass, and none is left behind' descriptors

cancel() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 \
        --frames "exec cule-ipc serve --kill-grace 50ms --each 'echo \$\$ >pid; exec sleep 600'"
    cule-ipc call "unix:$PWD/s" my 0x4000 2>/dev/null &
    caller=$!
    wait_for '[ -s pid ]'
    kill "$caller"
    wait_for 'gone "$(cat pid)"'
    rm pid
    status 5 cule-ipc call "unix:$PWD/s" my 0x4000 --timeout 300ms 2>err
    wait_for 'gone "$(cat pid)"'
    cule-ipc call "unix:$PWD/s" cule stats >out
    contains out '"worker_restarts_total":0'
}
test_case 'cancel and deadline reach the worker, which lives on' cancel

death() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 --name pool \
        --frames "$(worker 'echo >>began; [ "$CULE_ARG0" = 1 ] && sleep 600; echo ok')"
    for i in 1 2 3; do
        cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 1 2>"err.$i" &
        pids[i]=$!
    done
    wait_for '[ "$(wc -l <began)" = 3 ]'
    victim=$(pgrep -P "$w_pid")
    begin=${EPOCHREALTIME/./}
    kill -9 "$victim"
    for i in 1 2 3; do
        status 4 wait "${pids[i]}"
        contains "err.$i" 'worker pool\[[0-9]+\] (ended|was ended by signal 9)'
    done
    [ $((${EPOCHREALTIME/./} - begin)) -lt 5000000 ]
    cule-ipc call "unix:$PWD/s" my 0x4000 >out
    is out ok
}
test_case 'kill -9 of a worker: all its callers are told at once, and it is started again' death

limits() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 -j 1 --queue 1 \
        --frames "$(worker 'echo >>began; sleep 600')"
    cule-ipc call "unix:$PWD/s" my 0x4000 2>/dev/null &
    wait_for '[ -e began ]'
    cule-ipc call "unix:$PWD/s" my 0x4000 2>/dev/null &
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"queued\":1"'
    status 6 cule-ipc call "unix:$PWD/s" my 0x4000 2>err
    contains err '\(--queue\)'
}
test_case 'concurrency and queue limits hold' limits

early_stream() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 -j 1 \
        --frames "$(worker 'if [ "$CULE_ARG0" = 1 ]; then echo >began; read -r l <gate; else cat; fi')"
    mkfifo gate
    cule-ipc call "unix:$PWD/s" my 0x4000 --arg0 1 &
    first=$!
    wait_for '[ -e began ]'
    head -c 1000000 /dev/urandom >big
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload begin --stream <big >out &
    second=$!
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"queued\":1"'
    echo go >gate
    wait "$first" "$second"
    {
        printf begin
        cat big
    } | cmp - out
}
test_case 'a stream that comes while its request waits is whole' early_stream

nothing_left() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 3 --frames "$(worker cat)"
    workers=$(pgrep -P "$w_pid")
    [ "$(echo "$workers" | wc -l)" = 3 ]
    cule-ipc send "unix:$PWD/s" my 0x4000 --payload event
    stop w
    [ "$stopped" = 0 ]
    for p in $workers; do wait_for "gone $p"; done
}
test_case 'SIGTERM takes the workers along' nothing_left

# A worker and an asker that speak frames by themselves, as cule-frame(5) has them.
cat >"$TAP_DIR/caps.py" <<'END'
import socket, struct, sys

table = []
for i in range(256):
    for _ in range(8):
        i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
    table.append(i)

def crc(data):
    c = 0xFFFFFFFF
    for b in data:
        c = c >> 8 ^ table[(c ^ b) & 255]
    return c ^ 0xFFFFFFFF

def frame(kind, id=0, op=0, cap=0, flags=0, arg0=0, service=b"my\0\0", body=b""):
    def head(check):
        return struct.pack("<2s4BH4sIQIIIIQQQ", b"CU", 1, kind, 2, 0, flags, service, op, id, len(body), check, 0, 0,
                           arg0, 16 << 20 if kind == 1 else 0, cap)
    return head(crc(head(0))) + body + bytes(-len(body) % 8)

def frames(read):
    while True:
        h = b""
        while len(h) < 64:
            part = read(64 - len(h))
            if not part:
                return
            h += part
        f = struct.unpack("<2s4BH4sIQIIIIQQQ", h)
        left = (f[9] + 7) // 8 * 8
        while left:
            left -= len(read(left))
        yield {"kind": f[2], "flags": f[5], "op": f[7], "id": f[8], "arg0": f[13], "cap": f[15]}

REQUEST, REPLY, ERROR, DELEGATE = 2, 3, 4, 1 << 12
GIVEN = 3 << 48 | 1 << 32 | 6  # ours are even, since we were connected to
if sys.argv[1] == "worker":
    s = socket.socket(fileno=0)
    s.sendall(frame(1))
    for f in frames(s.recv):
        if f["kind"] == REQUEST and f["op"] == 0x4000:
            s.sendall(frame(REPLY, f["id"], 0x8000, GIVEN, DELEGATE))
        elif f["kind"] == REQUEST:  # arg0: what was presented
            s.sendall(frame(REPLY, f["id"], 0x8000, arg0=f["cap"]))
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[2])
    s.sendall(frame(1))
    got = frames(s.recv)
    def ask(id, op, cap=0, flags=0):
        s.sendall(frame(REQUEST, id, op, cap, flags))
        return next(f for f in got if f["id"] == id and f["kind"] in (REPLY, ERROR))
    a = ask(1, 0x4000)
    assert a["kind"] == REPLY and a["flags"] & DELEGATE and a["cap"] & 1 == 0, a
    assert a["cap"] >> 48 == 3
    assert ask(3, 0x4000)["cap"] == a["cap"]
    assert ask(5, 0x4001, a["cap"])["arg0"] == GIVEN
    narrow = a["cap"] & ~(2 << 48)
    assert ask(7, 0x4001, narrow)["arg0"] == GIVEN & ~(2 << 48)
    e = ask(9, 0x4001, a["cap"] | 0xFFFF << 48)
    assert e["kind"] == ERROR and e["arg0"] == 35, e
    e = ask(11, 0x4001, a["cap"] + 2)
    assert e["kind"] == ERROR and e["arg0"] == 35, e
    own = 1 << 48 | 1 << 32 | 9  # one of the asker's, given to the worker
    theirs = ask(13, 0x4001, own, DELEGATE)["arg0"]
    assert theirs & 1 == 1 and theirs >> 48 == 1, hex(theirs)
    print("held")
END

capabilities() {
    need python3
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --workers 1 --frames "exec python3 $TAP_DIR/caps.py worker"
    python3 "$TAP_DIR/caps.py" asker s >out
    is out held
    status 8 cule-ipc call "unix:$PWD/s" my 0x4001 --cap 0x0001000100000002 2>err
    contains err 'never given on this link'
}
test_case 'capabilities are translated both ways, and forgeries refused' capabilities

tap_done
