#!/usr/bin/env bash
# The broker's policies, seen from outside: overflow, history, quotas, the ACL, slow handlers, draining.
. "${0%/*}/../lib/tap.sh"
bus_pid="" s_pid="" p_pid="" d_pid="" q_pid="" # set by start
export CULE_BUS="unix:$CULE_RUN/bus"

# A subscriber that is stopped, and so many messages that its link and its queue are full.
flood='head -c 8192 /dev/zero | tr "\0" x'
stat_of() { cule-ipc stats --json | tr ',{}' '\n' | sed -n "s/^\"$1\"://p"; }

# Starts a broker whose topics t/# have the policies given.
broker() {
    start_ready bus cule-ipc bus --listen "$CULE_BUS" --topic "t/#:$1" "${@:2}"
}

overflow() {
    broker "overflow=$1,limit=50"
    start_ready s cule-ipc sub 't/#' --topics --no-reconnect
    kill -STOP "$s_pid"
    eval "$flood" >body
}

drop_oldest() {
    overflow drop-oldest
    cule-ipc pub t/x --payload @body --repeat 2000
    cule-ipc pub t/x last
    kill -CONT "$s_pid"
    wait_for 'grep -q "last" "$TAP_DIR/s.out"'
    got=$(wc -l <"$TAP_DIR/s.out")
    [ "$got" -lt 2001 ]
    [ $((got + $(stat_of dropped))) = 2001 ]
    cule-ipc explain >why
    contains why 'dropped [0-9]+ messages.*t/x.*queue full.*limit 50'
}
test_case 'drop-oldest keeps the newest, counts the rest, and can be asked why' drop_oldest

drop_newest() {
    overflow drop-newest
    cule-ipc pub t/x --payload @body --repeat 2000
    cule-ipc pub t/x last
    kill -CONT "$s_pid"
    wait_for '[ $(($(wc -l <"$TAP_DIR/s.out") + $(stat_of dropped))) = 2001 ]'
    lacks "$TAP_DIR/s.out" last
}
test_case 'drop-newest keeps what came first' drop_newest

disconnect() {
    overflow disconnect
    cule-ipc pub t/x --payload @body --repeat 2000
    wait_for 'grep -q "disconnected: queue full" "$TAP_DIR/bus.err"'
    kill -CONT "$s_pid"
    wait_for gone "$s_pid"
    cule-ipc explain >why
    contains why 'cut the connection'
    [ "$(stat_of disconnected)" = 1 ]
}
test_case 'disconnect cuts the slow one, and says so' disconnect

block() {
    overflow block
    start p cule-ipc pub t/x --payload @body --repeat 2000
    wait_for '[ "$(stat_of parked_now)" -gt 0 ]'
    kill -0 "$p_pid"
    status 0 cule-ipc pub elsewhere "is not held up" --timeout 5s
    status 5 cule-ipc pub t/x "has a deadline" --timeout 300ms 2>err
    kill -CONT "$s_pid"
    wait_for gone "$p_pid"
    wait_for '[ "$(wc -l <"$TAP_DIR/s.out")" = 2000 ]'
    [ "$(stat_of dropped)" = 0 ]
}
test_case 'block holds the publisher, loses nothing, and obeys its deadline' block

history() {
    broker 'history=5'
    seq 1 9 | cule-ipc pub t/h --format lines
    cule-ipc sub t/h --last 3 --count 3 >out
    is out '7
8
9'
    cule-ipc sub t/h --from 6 --count 4 --format json >out
    contains out '"arg1":"6"'
    cule-ipc pub t/h kept --retain
    cule-ipc sub 't/#' --count 1 >out
    is out kept
    cule-ipc pub t/h --retain </dev/null
    start_ready s cule-ipc sub t/h --count 1
    cule-ipc pub t/h live
    wait_for gone "$s_pid"
    is "$TAP_DIR/s.out" live
}
test_case 'history, resume from a number, retained messages' history

group() {
    broker 'history=0'
    start_ready a cule-ipc sub t/g --group g
    start_ready b cule-ipc sub t/g --group g
    seq 1 100 | cule-ipc pub t/g --format lines
    wait_for '[ "$(cat "$TAP_DIR/a.out" "$TAP_DIR/b.out" | wc -l)" = 100 ]'
    cat "$TAP_DIR/a.out" "$TAP_DIR/b.out" | sort -n >out
    seq 1 100 >want
    same want out
    [ -s "$TAP_DIR/a.out" ] && [ -s "$TAP_DIR/b.out" ]
}
test_case 'a queue group shares: each message to one member' group

work() {
    broker 'history=0'
    start_ready d cule-ipc sub '$bus/dead/#' --topics --count 1
    start_ready w cule-ipc work t/w --max-deliver 3 -- sh -c 'read x; echo "$x" >>tried; [ "$x" != bad ]'
    printf 'good\nbad\nfine\n' | cule-ipc pub t/w --format lines
    wait_for gone "$d_pid"
    printf '$bus/dead/t/w\tbad\n' | same - "$TAP_DIR/d.out"
    wait_for '[ "$(stat_of acked)" = 2 ]'
    [ "$(grep -c bad tried)" = 3 ]
    cule-ipc explain >why
    contains why 'gave up a message.*t/w'
}
test_case 'nacked three times, then to the dead letters' work

worker_dies() {
    broker 'history=0'
    start_ready w cule-ipc work t/w --timeout 60s -- sh -c 'echo started >>one; sleep 60'
    cule-ipc pub t/w job
    wait_for '[ -s one ]'
    start_ready w2 cule-ipc work t/w --count 1 -- sh -c 'cat >two'
    stop w KILL
    wait_for '[ -s two ]'
    is two job 2>/dev/null || [ "$(cat two)" = job ]
}
test_case 'what a killed worker had is done by another at once' worker_dies

responder_dies() {
    broker 'history=0'
    status 4 cule-ipc request t/svc hello --timeout 5s 2>err
    contains err 'nobody answers'
    start_ready r cule-ipc respond 't/#' --each 'sleep 60'
    start q cule-ipc request t/svc hello --timeout 30s
    wait_for '[ "$(stat_of routes)" = 1 ]'
    stop r KILL
    wait_for -t 3 gone "$q_pid"
    contains "$TAP_DIR/q.err" 'closed|gone'
    start_ready r cule-ipc respond 't/#' --each 'tr a-z A-Z'
    cule-ipc request t/svc hello >out
    [ "$(cat out)" = HELLO ]
}
test_case 'a responder killed in the middle: the asker is told at once' responder_dies

quota() {
    broker 'history=0' --max-rate 5 --max-subscriptions 1
    status 6 cule-ipc pub t/x y --repeat 50 --ack 2>err
    contains err 'messages per second'
    cule-ipc explain >why
    contains why 'refused.*quota'
}
test_case 'quotas are refused by name' quota

acl() {
    hash=$(printf %s secret | sha256sum | cut -d' ' -f1)
    cat >rules <<X
# who may do what
token robot sha256:$hash
deny  * subscribe private/#
allow uid:$(id -u) subscribe #
allow token:robot publish robots/#
X
    start_ready bus cule-ipc bus --listen "$CULE_BUS" --acl rules
    start_ready s cule-ipc sub 'robots/+' --count 1
    status 8 cule-ipc pub robots/1 x 2>err
    contains err 'may not publish .robots/1.: no line of the ACL'
    status 8 cule-ipc sub private/x 2>err
    contains err 'ACL line 3'
    printf secret >token
    cule-ipc pub robots/1 hello --token-file token
    wait_for gone "$s_pid"
    printf wrong >token
    status 8 cule-ipc pub robots/1 hello --token-file token 2>err
    echo 'allow * all #' >rules
    kill -HUP "$bus_pid"
    wait_for 'cule-ipc pub robots/1 now'
    echo 'allow everybody' >rules
    kill -HUP "$bus_pid"
    wait_for 'grep -q "the rules in force stay.*line 1" "$TAP_DIR/bus.err"'
    cule-ipc pub robots/1 still
}
test_case 'the ACL: by uid and token, its line named, read again on SIGHUP' acl

# certificate NAME: NAME.key and NAME.pem, signed by ca.pem
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    printf 'subjectAltName=DNS:%s,IP:127.0.0.1\n' "$1" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
}

certificates() {
    need openssl
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca 2>/dev/null
    certificate broker
    certificate alice
    certificate mallory
    echo 'allow cert:alice all #' >rules
    start_ready bus cule-ipc bus -v --acl rules --listen "tls:127.0.0.1:0,cert=broker.pem,key=broker.key,ca=ca.pem"
    port=$(sed -n 's/.*listening on tls:127.0.0.1:\([0-9]*\).*/\1/p' "$TAP_DIR/bus.err")
    at() { echo "tls:127.0.0.1:$port,cert=$1.pem,key=$1.key,ca=ca.pem"; }
    status 0 cule-ipc pub x hello --bus "$(at alice)"
    status 8 cule-ipc pub x hello --bus "$(at mallory)" 2>err
    contains err 'may not publish'
}
test_case 'the ACL: by the name in a certificate' certificates

slow() {
    broker 'history=0' --slow 200ms
    start_ready w cule-ipc work t/w -- sleep 2
    cule-ipc pub t/w x
    wait_for 'grep -q "slow handler: client.*t/w" "$TAP_DIR/bus.err"'
    [ "$(grep -c 'slow handler' "$TAP_DIR/bus.err")" = 1 ]
}
test_case 'a slow handler is reported, once' slow

drain() {
    broker 'limit=10000,overflow=block' --queue-bytes 100M
    start_ready s cule-ipc sub 't/#' --no-reconnect
    eval "$flood" >body
    kill -STOP "$s_pid"
    cule-ipc pub t/x --payload @body --repeat 1500
    kill -TERM "$bus_pid"
    wait_for '! cule-ipc pub t/x "no more" --timeout 1s'
    kill -0 "$bus_pid"
    kill -CONT "$s_pid"
    wait_for gone "$s_pid"
    wait_for gone "$bus_pid"
    [ "$(wc -l <"$TAP_DIR/s.out")" = 1500 ]
    fails test -e "$CULE_RUN/bus"
}
test_case 'SIGTERM lets subscribers have what waits' drain

drain_deadline() {
    broker 'limit=10000,overflow=block' --queue-bytes 100M --drain 300ms
    start_ready s cule-ipc sub 't/#'
    kill -STOP "$s_pid"
    eval "$flood" >body
    cule-ipc pub t/x --payload @body --repeat 1500
    stop bus TERM
    [ "$stopped" = 0 ]
    contains "$TAP_DIR/bus.err" 'nobody took within --drain'
}
test_case 'but only so long' drain_deadline

log_level() {
    broker 'history=0'
    cule-ipc log-level >out
    contains out warning
    cule-ipc log-level error
    start_ready s cule-ipc sub 't/#' --queue 1 --overflow disconnect --no-reconnect
    kill -STOP "$s_pid"
    eval "$flood" >body
    cule-ipc pub t/x --payload @body --repeat 2000
    wait_for '[ "$(stat_of disconnected)" = 1 ]'
    lacks "$TAP_DIR/bus.err" disconnected
}
test_case 'how much it says can be changed while it runs' log_level

test_case 'the same address twice is refused' '
    broker history=0
    status 1 cule-ipc bus --listen "$CULE_BUS" 2>err
    contains err "$CULE_RUN/bus"
'

test_case 'one link over standard input and output' '
    status 0 cule-ipc list --bus "exec:exec cule-ipc bus --listen -" --json >out
    contains out "\"clients\":\[\{\"id\":1"
'

test_case 'a bad policy is a usage error that names it' '
    status 2 cule-ipc bus --listen "$CULE_BUS" --topic "a/#:overflow" 2>err
    status 2 cule-ipc bus --listen "$CULE_BUS" --topic "a/#:overflow=sometimes" 2>err
    contains err "sometimes.*drop-oldest"
    status 8 cule-ipc bus --listen "$CULE_BUS" --topic "a/#:durability=disk" 2>err
    contains err "no store"
'
tap_done
