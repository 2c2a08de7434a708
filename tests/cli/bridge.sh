#!/usr/bin/env bash
# bridge: two buses joined by a nats-server; maps, loops, reconnects on either side.
. "${0%/*}/../lib/tap.sh"

PATH=$PATH:/usr/sbin
command -v nats-server >/dev/null || skip_all "nats-server is not installed"
cule-ipc bridge --map 'a=a' --nats nats://127.0.0.1:1 2>"$TAP_DIR/probe"
if grep -q "no NATS" "$TAP_DIR/probe"; then skip_all "built without libnats"; fi

A="unix:$CULE_RUN/a" B="unix:$CULE_RUN/b"
start_ready busa cule-ipc bus --listen "$A" --topic '#:overflow=block,history=100000'
start_ready busb cule-ipc bus --listen "$B" --topic '#:overflow=block,history=100000'

# On a port that the kernel says is free; nats-server writes it down.
nats_start() {
    start nats nats-server -a 127.0.0.1 -p "${1:--1}" --ports_file_dir "$TAP_DIR" ${2:+-js -sd "$2"}
    # shellcheck disable=SC2154
    wait_for "[ -s $TAP_DIR/nats-server_$nats_pid.ports ]"
    url=$(jq -r '.nats[0]' "$TAP_DIR/nats-server_$nats_pid.ports")
    port=${url##*:}
}
nats_start

bridges() {
    start_ready ba cule-ipc bridge --bus "$A" --nats "$url" --origin a --map "$1"
    start_ready bb cule-ipc bridge --bus "$B" --nats "$url" --origin b --map "$1"
}

test_case 'what is published on one bus comes out on the other, both ways, once' '
    bridges "both/#=nats.both.>"
    start_ready sa cule-ipc sub "both/#" --bus "$A" --topics
    start_ready sb cule-ipc sub "both/#" --bus "$B" --topics
    cule-ipc pub both/x/y from-a --bus "$A"
    cule-ipc pub both/z from-b --bus "$B"
    cule-ipc pub both end --bus "$A"
    wait_for "grep -q end $TAP_DIR/sb.out && grep -q from-b $TAP_DIR/sa.out"
    printf "both\tend\nboth/x/y\tfrom-a\nboth/z\tfrom-b\n" >want
    sort "$TAP_DIR/sa.out" | same - want
    sort "$TAP_DIR/sb.out" | same - want
'

test_case 'no circles: two bridges on the same bus, one name, and messages pass once' '
    bridges "ring/#=nats.ring.>"
    start_ready bc cule-ipc bridge --bus "$A" --nats "$url" --origin a --map "ring/#<nats.ring.>"
    start_ready sa cule-ipc sub "ring/#" --bus "$A"
    start_ready sb cule-ipc sub "ring/#" --bus "$B"
    seq 500 | cule-ipc pub ring/x --format lines --bus "$A"
    wait_for "[ \$(wc -l <$TAP_DIR/sb.out) = 500 ]"
    cule-ipc pub ring/x last --bus "$A"
    wait_for "grep -q last $TAP_DIR/sb.out"
    { seq 500; echo last; } | same - "$TAP_DIR/sa.out"
    { seq 500; echo last; } | same - "$TAP_DIR/sb.out"
'

test_case 'names that the other side cannot have come back as they were' '
    bridges "odd/+=odd.*"
    start_ready sb cule-ipc sub "odd/+" --bus "$B" --topics --count 3
    cule-ipc pub "odd/with.dot" 1 --bus "$A"
    cule-ipc pub "odd/with space" 2 --bus "$A"
    cule-ipc pub "odd/100%*>" 3 --bus "$A"
    wait_for gone $sb_pid
    printf "odd/with.dot\t1\nodd/with space\t2\nodd/100%%*>\t3\n" | same - "$TAP_DIR/sb.out"
'

test_case 'one way is one way' '
    start_ready ba cule-ipc bridge --bus "$A" --nats "$url" --origin a --map "out/#>one.>"
    start_ready bb cule-ipc bridge --bus "$B" --nats "$url" --origin b --map "in/#<one.>" --map "back/#=one.back.>"
    start_ready sb cule-ipc sub "#" --bus "$B" --topics --no-retained
    start_ready sa cule-ipc sub "#" --bus "$A" --topics --no-retained
    cule-ipc pub back/x no --bus "$B"
    cule-ipc pub out/x yes --bus "$A"
    wait_for "grep -q \"in/x.yes\" $TAP_DIR/sb.out"
    is "$TAP_DIR/sa.out" "out/x	yes"
'

test_case 'NATS is restarted: both bridges come back, and messages pass again' '
    bridges "again/#=again.>"
    start_ready sb cule-ipc sub again/x --bus "$B"
    seq 1 100 | cule-ipc pub again/x --format lines --bus "$A"
    wait_for "[ \$(wc -l <$TAP_DIR/sb.out) = 100 ]"
    stop nats KILL
    seq 101 200 | cule-ipc pub again/x --format lines --bus "$A"
    nats_start $port
    wait_for "grep -q \"connected to NATS.*again\" $TAP_DIR/bb.err"
    seq 201 300 | cule-ipc pub again/x --format lines --bus "$A"
    wait_for "grep -qx 300 $TAP_DIR/sb.out"
    # What goes out before the other bridge is back finds no listener there: that takes JetStream (below).
    seq 1 100 >want
    head -n 100 "$TAP_DIR/sb.out" | same - want
    seq 201 300 >want
    tail -n 100 "$TAP_DIR/sb.out" | same - want
    contains "$TAP_DIR/ba.err" "lost NATS"
'
[ -d "/proc/$nats_pid" ] || nats_start "$port"

test_case 'a bus is restarted: the bridge comes back, and goes on' '
    start_ready busc cule-ipc bus --listen "unix:$PWD/c"
    start_ready bx cule-ipc bridge --bus "unix:$PWD/c" --nats "$url" --origin c --map "r/#=r.>"
    start_ready ba cule-ipc bridge --bus "$A" --nats "$url" --origin a --map "r/#=r.>"
    start_ready sa cule-ipc sub "r/#" --bus "$A"
    cule-ipc pub r/1 before --bus "unix:$PWD/c"
    wait_for "grep -q before $TAP_DIR/sa.out"
    stop busc KILL
    cule-ipc pub r/2 meanwhile --bus "$A"
    start_ready busc cule-ipc bus --listen "unix:$PWD/c" --topic "#:history=10"
    wait_for "cule-ipc list clients --bus unix:$PWD/c | grep -q bridge"
    cule-ipc pub r/3 after --bus "unix:$PWD/c"
    wait_for "grep -q after $TAP_DIR/sa.out"
    wait_for "cule-ipc sub \"r/2\" --from 1 --count 1 --timeout 100ms --bus unix:$PWD/c | grep -q meanwhile"
'

test_case 'JetStream: acknowledged on both sides, nothing lost while a bridge is away' '
    mkdir js
    stop nats
    nats_start "" "$PWD/js"
    need python3
    # A stream by the plain protocol: no client of NATS is installed.
    python3 - "$port" <<EOF
import json, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rwb")
f.readline()
body = json.dumps({"name": "J", "subjects": ["js.>"], "storage": "file"}).encode()
f.write(b"CONNECT {\"verbose\":false}\r\nSUB reply 1\r\nPUB \$JS.API.STREAM.CREATE.J reply %d\r\n%s\r\n" % (len(body), body))
f.flush()
line = f.readline()
while not line.startswith(b"MSG"):
    line = f.readline()
answer = json.loads(f.readline())
assert "error" not in answer, answer
EOF
    start_ready ba cule-ipc bridge --bus "$A" --nats "$url" --origin a --map "j/#>js.>" --jetstream
    start_ready bb cule-ipc bridge --bus "$B" --nats "$url" --origin b --map "j/#<js.>" --jetstream
    start_ready sb cule-ipc sub j/x --bus "$B"
    seq 1 1000 | cule-ipc pub j/x --format lines --bus "$A"
    wait_for "[ \$(wc -l <$TAP_DIR/sb.out) = 1000 ]"
    stop bb KILL
    seq 1001 2000 | cule-ipc pub j/x --format lines --bus "$A"
    start_ready bb cule-ipc bridge --bus "$B" --nats "$url" --origin b --map "j/#<js.>" --jetstream
    wait_for "[ \$(sort -u $TAP_DIR/sb.out | wc -l) = 2000 ]"
'

test_case 'SIGTERM ends it with status 0; --stats-every tells counters' '
    [ -d "/proc/$nats_pid" ] || nats_start
    start_ready ba cule-ipc bridge --bus "$A" --nats "$url" --map "s/#=s.>" --stats-every 100ms
    cule-ipc pub s/x 1 --bus "$A"
    wait_for "grep -q \"\\\"to_nats\\\":1\" $TAP_DIR/ba.err"
    stop ba
    [ "$stopped" = 0 ]
'

test_case 'mistakes: status 2; no NATS: status 4' '
    status 2 cule-ipc bridge --bus "$A" --map "a/#=b.*" 2>err
    contains err "same wildcards"
    status 2 cule-ipc bridge --bus "$A" --map "a" 2>err
    status 2 cule-ipc bridge --bus "$A" --map "a=b..c" 2>err
    contains err "no NATS subject"
    status 2 cule-ipc bridge --bus "$A" 2>err
    contains err "map"
    status 4 cule-ipc bridge --bus "$A" --nats nats://127.0.0.1:1 --map a=a 2>err
    contains err "cannot reach NATS"
'

tap_done
