#!/usr/bin/env bash
# pub and sub against a real broker: formats, exit statuses, back pressure, resume after a lost connection.
. "${0%/*}/../lib/tap.sh"

export CULE_BUS="unix:$CULE_RUN/bus"
start_ready bus cule-ipc bus --listen "$CULE_BUS" --topic 'block/#:overflow=block' --topic 'kept/#:history=100000,overflow=block'

test_case 'a text goes to a subscriber, and pub says that it was taken' '
    start_ready s cule-ipc sub text/a --count 1
    status 0 cule-ipc pub text/a "hello world"
    wait_for gone $s_pid
    is "$TAP_DIR/s.out" "hello world"
'

test_case 'without a text standard input is one message' '
    start_ready s cule-ipc sub text/b --format raw --count 1
    printf "two\nlines" | cule-ipc pub text/b
    wait_for gone $s_pid
    printf "two\nlines" | same - "$TAP_DIR/s.out"
'

test_case 'a file, a priority, several times' '
    echo from-file >f
    start_ready s cule-ipc sub text/c --format json --count 3
    cule-ipc pub text/c --payload @f --priority high --repeat 3
    wait_for gone $s_pid
    [ "$(grep -c "\"priority\":\"high\"" "$TAP_DIR/s.out")" = 3 ]
'

test_case 'lines: every line is a message, the last one without a newline too' '
    start_ready s cule-ipc sub "block/lines" --count 4
    printf "one\n\nthree\nfour" | cule-ipc pub block/lines --format lines
    wait_for gone $s_pid
    printf "one\n\nthree\nfour\n" | same - "$TAP_DIR/s.out"
'

test_case 'a newline inside a body is printed as \n, with --null as it is' '
    start_ready s cule-ipc sub text/d --count 1
    start_ready z cule-ipc sub text/d --count 1 --null --topics
    cule-ipc pub text/d "a
b"
    wait_for gone $s_pid
    wait_for gone $z_pid
    is "$TAP_DIR/s.out" "a\\nb"
    printf "text/d\ta\nb\0" | same - "$TAP_DIR/z.out"
'

test_case 'json out and in: what sub prints, pub publishes again to the same topic' '
    start_ready s cule-ipc sub "text/json/#" --format json --count 3
    cule-ipc pub text/json/a "{\"x\":1}"
    cule-ipc pub text/json/b "plain \"text\""
    printf "\377\0" | cule-ipc pub text/json/c
    wait_for gone $s_pid
    contains "$TAP_DIR/s.out" "\"topic\":\"text/json/a\",\"payload_json\":\{\"x\":1\}"
    contains "$TAP_DIR/s.out" "payload_text"
    contains "$TAP_DIR/s.out" "\"payload_b64\":\"/wA=\""
    cp "$TAP_DIR/s.out" first
    start_ready s cule-ipc sub "text/json/#" --format json --count 3
    cule-ipc pub --format json <first
    wait_for gone $s_pid
    sed "s/\"arg1\":\"[0-9]*\",//; s/\"source\":[0-9]*,//" first >a
    sed "s/\"arg1\":\"[0-9]*\",//; s/\"source\":[0-9]*,//" "$TAP_DIR/s.out" >b
    same a b
'

test_case 'json lines by hand need a topic and a payload at most' '
    start_ready s cule-ipc sub "text/hand/#" --topics --count 3
    printf "%s\n" "{\"topic\":\"text/hand/a\",\"payload_text\":\"t\"}" "" \
        "{\"topic\":\"text/hand/b\",\"payload_json\":[1, 2]}" "{\"topic\":\"text/hand/c\"}" |
        cule-ipc pub --format json
    wait_for gone $s_pid
    printf "text/hand/a\tt\ntext/hand/b\t[1, 2]\ntext/hand/c\t\n" | same - "$TAP_DIR/s.out"
'

test_case 'a bad line ends with status 3 and says what is wrong' '
    status 3 cule-ipc pub --format json 2>err <<<"{\"topic\":\"a\""
    contains err "column"
    status 3 cule-ipc pub --format json 2>err <<<"{\"topic\":\"a\",\"paylaod\":1}"
    contains err "paylaod"
    status 3 cule-ipc pub --format json 2>err <<<"{\"payload_text\":\"x\"}"
    contains err "topic"
'

test_case 'frames out and in' '
    start_ready s cule-ipc sub "text/frames" --format frames --count 2
    cule-ipc pub text/frames one
    head -c 200000 /dev/zero | cule-ipc pub text/frames
    wait_for gone $s_pid
    start_ready t cule-ipc sub text/again --format raw --count 2
    cule-ipc pub text/again --format frames <"$TAP_DIR/s.out"
    wait_for gone $t_pid
    { printf one; head -c 200000 /dev/zero; } | same - "$TAP_DIR/t.out"
'

test_case 'retained: a later subscriber gets it, unless it wants none; an empty body clears it' '
    cule-ipc pub text/kept value --retain
    status 0 cule-ipc sub text/kept --count 1 --timeout 10s >out
    is out value
    status 5 cule-ipc sub text/kept --no-retained --count 1 --timeout 0.2s 2>err
    cule-ipc pub text/kept --retain --payload ""
    status 5 cule-ipc sub text/kept --count 1 --timeout 0.2s 2>err
'

test_case 'history: from a number, the last, since a time' '
    seq 100 | cule-ipc pub kept/history --format lines
    cule-ipc sub kept/history --from 98 --count 3 --timeout 10s >out
    seq 98 100 | same - out
    cule-ipc sub kept/history --last 2 --count 2 --timeout 10s >out
    seq 99 100 | same - out
    cule-ipc sub kept/history --since 1h --count 100 --timeout 10s >out
    seq 100 | same - out
    status 2 cule-ipc sub kept/history --last 2 --from 1 2>err
    contains err "exclude each other"
'

test_case 'a group shares its messages' '
    start_ready a cule-ipc sub block/group --group g
    start_ready b cule-ipc sub block/group --group g
    seq 1000 | cule-ipc pub block/group --format lines
    wait_for "[ \$(cat $TAP_DIR/a.out $TAP_DIR/b.out | wc -l) = 1000 ]"
    sort -n "$TAP_DIR/a.out" "$TAP_DIR/b.out" >got
    seq 1000 | same - got
    [ -s "$TAP_DIR/a.out" ] && [ -s "$TAP_DIR/b.out" ]
'

test_case 'SIGTERM ends a subscriber with status 0, and what came is printed' '
    start_ready s cule-ipc sub block/term
    seq 100 | cule-ipc pub block/term --format lines
    wait_for "[ \$(wc -l <$TAP_DIR/s.out) = 100 ]"
    stop s
    [ "$stopped" = 0 ]
'

test_case 'a reader that goes away ends a subscriber quietly, at once' '
    mkfifo p
    cule-ipc sub block/head 2>err >p &
    pid=$!
    exec 4<p
    wait_for "cule-ipc list subscriptions | grep -q block/head"
    cule-ipc pub block/head x
    read -r line <&4
    [ "$line" = x ]
    exec 4<&-
    wait_for gone $pid
    [ ! -s err ]
'

test_case 'back pressure: a publisher waits for a subscriber that does not read, and nothing is lost' '
    mkfifo p
    cule-ipc sub block/slow --count 300000 >p &
    exec 4<p
    wait_for "cule-ipc list subscriptions | grep -q block/slow"
    start pub sh -c "seq 300000 | cule-ipc pub block/slow --format lines"
    wait_for "cule-ipc stats --json | jq -e .parked_now\>0"
    fails gone $pub_pid
    cat <&4 >got
    wait_for gone $pub_pid
    seq 300000 | same - got
'

test_case 'a stream of a megabyte a line passes' '
    start_ready s cule-ipc sub block/large --format raw --count 3
    for i in 1 2 3; do head -c 1000000 /dev/zero | tr "\0" "$i"; echo; done | cule-ipc pub block/large --format lines
    wait_for gone $s_pid
    for i in 1 2 3; do head -c 1000000 /dev/zero | tr "\0" "$i"; done | same - "$TAP_DIR/s.out"
'

test_case '--ack counts what the bus took' '
    seq 5000 | cule-ipc pub kept/acked --format lines --ack -v 2>err
    contains err "published 5000, acknowledged 5000"
    cule-ipc sub kept/acked --from 1 --count 5000 --timeout 10s >out
    seq 5000 | same - out
'

test_case '--rate holds messages back' '
    t=$EPOCHREALTIME
    cule-ipc pub text/rate x --repeat 21 --rate 100
    e=$EPOCHREALTIME
    ms=$(((${e/./} - ${t/./}) / 1000))
    [ "$ms" -ge 190 ]
'

# A forwarder whose connections can be cut while the broker lives on: each line on its input cuts them all.
cat >"$TAP_DIR/forward.py" <<'EOF'
import os, socket, sys, threading
front, back = sys.argv[1:]
ls = socket.socket(socket.AF_UNIX)
ls.bind(front + ".new")
ls.listen(16)
os.rename(front + ".new", front)
live = []
def pump(a, b):
    try:
        while d := a.recv(65536):
            b.sendall(d)
    except OSError:
        pass
    for s in a, b:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def cut():
    for _ in sys.stdin:
        for s in live[:]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        live.clear()
threading.Thread(target=cut, daemon=True).start()
while True:
    a, _ = ls.accept()
    b = socket.socket(socket.AF_UNIX)
    b.connect(back)
    live.append(a)
    for x, y in (a, b), (b, a):
        threading.Thread(target=pump, args=(x, y), daemon=True).start()
EOF

cuttable() {
    need python3
    mkfifo cut
    # shellcheck disable=SC2238
    python3 "$TAP_DIR/forward.py" "$PWD/front" "$CULE_RUN/bus" <cut &
    # shellcheck disable=SC2238
    exec 5>cut
    wait_for "[ -S front ]"
}

resumes() {
    local c
    cuttable
    start_ready s cule-ipc sub "$1" --bus "unix:$PWD/front" --count 10000
    for c in 0 1 2 3 4; do
        seq $((c * 2000 + 1)) $((c * 2000 + 2000)) | cule-ipc pub "$2" --format lines
        echo >&5
    done
    # shellcheck disable=SC2154
    wait_for gone "$s_pid"
    seq 10000 | same - "$TAP_DIR/s.out"
    contains "$TAP_DIR/s.err" "trying again"
}
test_case 'a subscriber that loses its connection goes on without gap and without double' '
    resumes kept/resume kept/resume
'
test_case 'the same with a wildcard' '
    resumes "kept/+/wild" kept/resume/wild
'

test_case '--no-reconnect ends with status 4 instead' '
    cuttable
    start_ready s cule-ipc sub kept/x --bus "unix:$PWD/front" --no-reconnect
    echo >&5
    stop s 0
    [ "$stopped" = 4 ]
    contains "$TAP_DIR/s.err" "closed the connection|lost the bus"
'

test_case 'pub --ack sends again what was under way when the connection broke' '
    cuttable
    start_ready s cule-ipc sub kept/twice --format lines
    start p sh -c "seq 30000 | cule-ipc pub kept/twice --format lines --ack --bus unix:$PWD/front"
    wait_for "[ -s $TAP_DIR/s.out ]"
    echo >&5
    wait_for gone $p_pid
    wait_for "[ \$(sort -u $TAP_DIR/s.out | wc -l) = 30000 ]"
'

test_case 'no bus: status 4 and where it was looked for' '
    status 4 cule-ipc sub x --bus "unix:$PWD/none" 2>err
    contains err "cannot reach the bus at .unix:.*/none"
    status 4 cule-ipc pub x y --bus "unix:$PWD/none" --timeout 1s 2>err
    contains err "cannot reach the bus"
'

test_case 'topics and patterns that are none: status 2' '
    for t in "a//b" "/a" "a/" "a/+" "#" ""; do
        status 2 cule-ipc pub "$t" x 2>err
        contains err "topic"
    done
    for p in "a/#/b" "a+" "a//b"; do
        status 2 cule-ipc sub "$p" 2>err
        contains err "pattern"
    done
'

test_case 'nothing to publish on a terminal is told, not waited for' '
    status 2 with_tty "cule-ipc pub a" >out 2>&1
    contains out "nothing to publish"
'

tap_done
