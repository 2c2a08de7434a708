#!/usr/bin/env bash
# request, respond and work against a real broker.
. "${0%/*}/../lib/tap.sh"

export CULE_BUS="unix:$CULE_RUN/bus"
start_ready bus cule-ipc bus --listen "$CULE_BUS" --topic 'jobs/#:overflow=block' --topic 'kept/#:history=10000'

test_case 'a request is answered by a command, with topic and header in its environment' '
    start_ready r cule-ipc respond "math/#" --each "read -r x; echo \"\$CULE_TOPIC \$x \$CULE_PRIORITY \$CULE_BUS\""
    cule-ipc request math/double "4 2" --priority high >out
    is out "math/double 4 2 high $CULE_BUS"
    echo 7 | cule-ipc request math/half >out
    is out "math/half 7 normal $CULE_BUS"
    cule-ipc request math/x y --json >out
    contains out "\"kind\":\"reply\".*\"payload_text\":\"math/x y normal"
'

test_case 'nobody responds: status 4, at once' '
    t=$EPOCHREALTIME
    status 4 cule-ipc request nobody/here x 2>err
    e=$EPOCHREALTIME
    contains err "nobody"
    [ "$(((${e/./} - ${t/./}) / 1000))" -lt 2000 ]
'

test_case 'a command that fails: its status is the verdict, and what it said is told' '
    start_ready r cule-ipc respond fails --each "echo reason >&2; exit 3"
    status 3 cule-ipc request fails x 2>err
    contains err "reason"
'

test_case 'no answer in time: status 5, and the whole tree that worked for it is ended' '
    start_ready r cule-ipc respond slow --each "(setsid sleep 1234.5 &) ; sleep 1234.5" --kill-grace 100ms
    status 5 cule-ipc request slow x --timeout 300ms 2>err
    contains err "in time"
    wait_for "! pgrep -f \"^sleep 1234.5\""
'

test_case 'a responder that is killed is told to the asker at once' '
    start_ready r cule-ipc respond dies --each "touch $PWD/running; sleep 60"
    start q cule-ipc request dies x --timeout 30s
    wait_for "[ -e running ]"
    kill -KILL $r_pid
    stop q 0
    [ "$stopped" = 4 ]
'

test_case 'persistent workers speak JSON lines' '
    need python3
    cat >w.py <<EOF
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    print(json.dumps({"id": m["id"], "payload_text": m["topic"] + "=" + m["payload_text"].upper()}), flush=True)
EOF
    start_ready r cule-ipc respond "up/#" --lines "python3 $PWD/w.py" --workers 2
    for i in 1 2 3 4 5; do
        cule-ipc request up/$i "text$i" >out
        printf "up/$i=TEXT$i" | same - out
    done
'

test_case 'SIGTERM lets a responder finish what it has' '
    start_ready r cule-ipc respond ending --each "touch $PWD/at-work; sleep 0.3; echo done"
    start q cule-ipc request ending x
    wait_for "[ -e at-work ]"
    stop r
    [ "$stopped" = 0 ]
    wait_for gone $q_pid
    is "$TAP_DIR/q.out" "done"
'

test_case 'work runs a command for each message, and acknowledges' '
    start_ready w cule-ipc work "jobs/a/#" --group g --count 3 -- sh -c "cat; echo \" \$CULE_TOPIC \$CULE_REDELIVERED\""
    for i in 1 2 3; do cule-ipc pub jobs/a/$i "body$i"; done
    wait_for gone $w_pid
    printf "body%s jobs/a/%s 0\n" 1 1 2 2 3 3 | same - "$TAP_DIR/w.out"
    cule-ipc stats --json | jq -e ".acked >= 3"
'

test_case 'a command that fails is given the message again, marked; then it is dead' '
    start_ready dead cule-ipc sub "\$bus/dead/#" --topics --count 1
    start_ready w cule-ipc work jobs/bad --group g --max-deliver 3 -- sh -c "echo \$CULE_REDELIVERED; exit 9"
    cule-ipc pub jobs/bad poison
    wait_for gone $dead_pid
    printf "0\n1\n1\n" | same - "$TAP_DIR/w.out"
    contains "$TAP_DIR/dead.out" "jobs/bad.*poison"
    contains "$TAP_DIR/w.err" "exit status 9"
'

test_case '--dead-status: no second attempt' '
    start_ready dead cule-ipc sub "\$bus/dead/jobs/hopeless" --count 1
    start_ready w cule-ipc work jobs/hopeless --group g --dead-status 3 -- sh -c "echo once; exit 3"
    cule-ipc pub jobs/hopeless x
    wait_for gone $dead_pid
    is "$TAP_DIR/w.out" once
'

test_case '--concurrency: so many at once, no more' '
    cat >job <<EOF
#!/bin/sh
echo start; sleep 0.2; echo end
EOF
    chmod +x job
    start_ready w cule-ipc work jobs/many --group g --concurrency 3 --count 9 -- ./job
    cule-ipc pub jobs/many x --repeat 9
    wait_for gone $w_pid
    awk "/start/{n++; if (n > m) m = n} /end/{n--} END{exit m != 3}" "$TAP_DIR/w.out"
'

test_case '--timeout ends a whole tree and gives the message back' '
    start_ready w cule-ipc work jobs/slow --group g --timeout 200ms --max-deliver 1 -- sh -c "(setsid sleep 4321.5 &) ; sleep 4321.5"
    cule-ipc pub jobs/slow x
    wait_for "grep -q \"no end in time\" $TAP_DIR/w.err"
    wait_for "! pgrep -f \"^sleep 4321.5\""
'

test_case 'two workers of a group share the messages; one that is killed mid-job loses none' '
    cat >job <<EOF
#!/bin/sh
read -r n; sleep 0.02; echo "\$n" >>$PWD/done
EOF
    chmod +x job
    : >done
    start_ready a cule-ipc work jobs/shared --group s --concurrency 2 -- ./job
    start_ready b cule-ipc work jobs/shared --group s --concurrency 2 -- ./job
    seq 60 | cule-ipc pub jobs/shared --format lines
    wait_for "[ \$(wc -l <done) -ge 10 ]"
    kill -KILL $a_pid
    wait_for "[ \$(sort -un done | wc -l) = 60 ]"
'

test_case 'SIGTERM finishes what runs and takes nothing new' '
    cat >job <<EOF
#!/bin/sh
read -r n; echo "\$n"; touch $PWD/began; sleep 0.3; echo "\$n done"
EOF
    chmod +x job
    start_ready w cule-ipc work jobs/drain --group g -- ./job
    printf "1\n2\n3\n" | cule-ipc pub jobs/drain --format lines
    wait_for "[ -e began ]"
    stop w
    [ "$stopped" = 0 ]
    printf "1\n1 done\n" | same - "$TAP_DIR/w.out"
'

test_case 'mistakes are told: status 2' '
    status 2 cule-ipc respond x 2>err
    contains err "each"
    status 2 cule-ipc work x --concurrency 0 -- true 2>err
    contains err "concurrency"
    status 2 cule-ipc request "a/+" x 2>err
'

tap_done
