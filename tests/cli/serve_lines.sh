#!/usr/bin/env bash
# cule-ipc serve --lines: persistent workers that speak JSON lines.
. "${0%/*}/../lib/tap.sh"
command -v python3 >/dev/null || skip_all 'python3 is not installed'

cat >"$TAP_DIR/worker.py" <<'END'
import base64, json, os, signal, sys, time
for line in sys.stdin:
    m = json.loads(line)
    if m["kind"] != "request":
        print("not a request:", m["kind"], file=sys.stderr, flush=True)
        continue
    op, say = m["op"], lambda **k: print(json.dumps(dict(k, id=m["id"])), flush=True)
    if op == 0x4000:  # upper case, with what else came
        say(payload_text=m.get("payload_text", "").upper(), arg0=m.get("arg0", "0"), arg1=str(os.getpid()))
    elif op == 0x4001:
        say(error="cannot do that", code="not_found", detail=17)
    elif op == 0x4002:
        for i in range(3):
            say(payload_text="part %d\n" % i, more=i < 2)
    elif op == 0x4003:
        os.kill(os.getpid(), signal.SIGKILL)
    elif op == 0x4004:
        say(payload_b64=base64.b64encode(base64.b64decode(m["payload_b64"])[::-1]).decode())
    elif op == 0x4005:
        print("this is no JSON", flush=True)
    elif op == 0x4006:
        open("began", "w").write(str(os.getpid()))
        time.sleep(600)
    elif op == 0x4007:
        say(payload_json={"a": [1, 2, None]})
    elif op == 0x4008:
        print(json.dumps({"id": m["id"], "payload_text": 5}), flush=True)
    elif op == 0x4009:
        n = 0
        while True:
            d = json.loads(sys.stdin.readline())
            n += len(d.get("payload_text", ""))
            if "open" not in d.get("flags", []):
                break
        say(payload_text=str(n))
END
worker="exec python3 $TAP_DIR/worker.py"

basics() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines "$worker" --workers 2
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload hello >out
    printf HELLO | cmp - out
    cule-ipc call --json "unix:$PWD/s" my 0x4000 --arg0 18446744073709551615 >out
    contains out '"arg0":"18446744073709551615"'
    cule-ipc call "unix:$PWD/s" my 0x4007 >out
    printf '{"a": [1, 2, null]}' | cmp - out
    cule-ipc call "unix:$PWD/s" my 0x4002 >out
    printf 'part 0\npart 1\npart 2\n' | cmp - out
    {
        head -c 1048576 /dev/urandom
        printf '\0\377'
    } >big
    cule-ipc call "unix:$PWD/s" my 0x4004 --payload @big >out
    python3 -c 'import sys; sys.stdout.buffer.write(open("big", "rb").read()[::-1])' | cmp - out
    status 1 cule-ipc call "unix:$PWD/s" my 0x4001 2>err
    is err 'cule-ipc: cannot do that'
    printf 'abc\ndef\n' | cule-ipc call "unix:$PWD/s" my 0x4009 --stream >out
    printf 8 | cmp - out
}
test_case 'answers, errors, streams, binary payloads of 1 MiB, 64-bit arguments' basics

spread() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines "$worker" --workers 2
    cule-ipc call "unix:$PWD/s" my 0x4006 2>/dev/null &
    wait_for '[ -e began ]'
    for _ in 1 2 3; do
        cule-ipc call --json "unix:$PWD/s" my 0x4000 | sed 's/.*"arg1":"\([0-9]*\)".*/\1/' >>pids
    done
    [ "$(sort -u pids | wc -l)" = 1 ]
    [ "$(head -n 1 pids)" != "$(cat began)" ]
}
test_case 'work goes to whoever is free' spread

death() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines "$worker" --workers 1
    begin=${EPOCHREALTIME/./}
    status 4 cule-ipc call "unix:$PWD/s" my 0x4003 2>err
    contains err 'worker .*ended by signal 9'
    [ $((${EPOCHREALTIME/./} - begin)) -lt 5000000 ]
    # It is back, and what comes meanwhile waits for it.
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload again >out
    printf AGAIN | cmp - out
    cule-ipc call "unix:$PWD/s" cule stats >out
    contains out '"worker_restarts_total":1'
    # Killed from outside in the middle of a request.
    cule-ipc call "unix:$PWD/s" my 0x4006 2>err &
    caller=$!
    wait_for '[ -s began ]'
    kill -9 "$(cat began)"
    status 4 wait "$caller"
    contains err 'ended by signal 9'
}
test_case 'a worker that dies: its caller is told at once, and it is started again' death

nonsense() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines "$worker" --workers 1
    status 4 cule-ipc call "unix:$PWD/s" my 0x4005 2>err
    contains err 'makes no sense'
    contains "$TAP_DIR/w.err" "no answer: .*'this is no JSON'"
    status 4 cule-ipc call "unix:$PWD/s" my 0x4008 2>err
    contains err 'payload_text'
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload 'still there' >out
    printf 'STILL THERE' | cmp - out
    cule-ipc call "unix:$PWD/s" cule stats >out
    contains out '"bad_lines_total":2'
    contains out '"worker_restarts_total":0'
    start_ready x cule-ipc serve --listen "unix:$PWD/x" --workers 1 \
        --lines 'while read -r l; do echo "{\"id\":\"999\",\"payload_text\":\"whose?\"}"; done'
    status 4 cule-ipc call "unix:$PWD/x" my 0x4000 2>err
    contains err 'no request has that id'
}
test_case 'a line that makes no sense is reported and fails its request, and the worker goes on' nonsense

cancel() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines "$worker" --workers 1 --kill-grace 100ms
    status 5 cule-ipc call "unix:$PWD/s" my 0x4006 --timeout 500ms 2>err
    wait_for 'gone "$(cat began)"'
    cule-ipc call "unix:$PWD/s" my 0x4000 --payload back >out
    printf BACK | cmp - out
    start_ready f cule-ipc serve --listen "unix:$PWD/f" --workers 1 --forward-cancel --kill-grace 20s \
        --lines 'while read -r l; do echo "$l" >>seen; done'
    status 5 cule-ipc call "unix:$PWD/f" my 0x4000 --timeout 100ms 2>err
    wait_for 'grep -q "\"kind\":\"cancel\"" seen'
}
test_case 'a worker stuck in a cancelled request is ended; --forward-cancel tells it instead' cancel

backoff() {
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines 'echo started >>starts; exit 1' --workers 1
    begin=${EPOCHREALTIME/./}
    wait_for '[ "$(wc -l <starts)" -ge 4 ]'
    [ $((${EPOCHREALTIME/./} - begin)) -ge 500000 ] # 100, 200 and 400 ms
    wait_for 'cule-ipc call "unix:$PWD/s" cule health | grep -q failed'
    cule-ipc call "unix:$PWD/s" cule health >out
    contains out '"state":"failed","reason":"0 of 1 workers are up"'
    contains "$TAP_DIR/w.err" 'worker .* ended with status 1; it is started again'
}
test_case 'a worker that cannot live is started with growing pauses' backoff

concurrency() {
    cat >many.py <<'END'
import json, sys
held = []
for line in sys.stdin:
    held.append(json.loads(line)["id"])
    if len(held) == 3:  # answered in the opposite order
        for i in reversed(held):
            print(json.dumps({"id": i, "payload_text": "answer"}), flush=True)
        held = []
END
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines 'exec python3 many.py' --workers 1 -j 3
    for i in 1 2 3; do
        cule-ipc call "unix:$PWD/s" my 0x4000 --timeout 10s >"out.$i" &
        pids[i]=$!
    done
    for i in 1 2 3; do
        wait "${pids[i]}"
        printf answer | cmp - "out.$i"
    done
}
test_case '--concurrency requests at once in one worker, answered in any order' concurrency

last_words() {
    cat >last.sh <<'END'
read -r line
id=$(echo "$line" | sed 's/.*"id":"\([0-9]*\)".*/\1/')
echo "{\"id\":\"$id\",\"payload_text\":\"my last\"}"
echo "and a word on stderr" >&2
END
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines 'sh last.sh' --workers 1 --name last
    for _ in 1 2 3; do
        cule-ipc call "unix:$PWD/s" my 0x4000 >out
        printf 'my last' | cmp - out
    done
    wait_for "grep -q '^last\[[0-9]*\]: and a word on stderr' '$TAP_DIR/w.err'"
}
test_case 'what a worker said just before it ended counts' last_words

drain() {
    cat >slow.py <<'END'
import json, sys, time
for line in sys.stdin:
    open("began", "w").close()
    time.sleep(0.3)
    print(json.dumps({"id": json.loads(line)["id"], "payload_text": "done"}), flush=True)
open("clean", "w").close()
END
    start_ready w cule-ipc serve --listen "unix:$PWD/s" --lines 'exec python3 slow.py' --workers 1
    cule-ipc call "unix:$PWD/s" my 0x4000 >out &
    caller=$!
    wait_for '[ -e began ]'
    stop w
    wait "$caller"
    printf 'done' | cmp - out
    [ "$stopped" = 0 ]
    [ -e clean ]
}
test_case 'SIGTERM: work is finished, workers see the end of their input' drain

tap_done
