#!/usr/bin/env bash
# list, top, hz, stats, log-level, tap and explain against a real broker.
. "${0%/*}/../lib/tap.sh"

export CULE_BUS="unix:$CULE_RUN/bus"
start_ready bus cule-ipc bus --listen "$CULE_BUS" --topic 'small/#:limit=5,overflow=drop-oldest' --log-level info

test_case 'list: tables with a row for each, and JSON' '
    start_ready s cule-ipc sub "seen/#" --group watchers
    cule-ipc pub seen/topic x
    cule-ipc list topics >out
    contains out "^topic.*overflow"
    contains out "^seen/topic.1"
    cule-ipc list clients >out
    contains out "cule-ipc sub.*unix"
    cule-ipc list subscriptions >out
    contains out "seen/#.watchers"
    cule-ipc list --json >out
    jq -e ".clients and .subscriptions and (.topics[] | select(.topic == \"seen/topic\") | .seq == 1)" out
    cule-ipc list topics "nothing/#" --json | jq -e ".topics == []"
    status 2 cule-ipc list nonsense 2>err
    contains err "clients, topics"
'

test_case 'top: one picture where there is no terminal, and q on one' '
    cule-ipc pub seen/top x
    cule-ipc top >out
    contains out "clients, [0-9]+ topics"
    contains out "^seen/top"
    cule-ipc top --json --count 2 --interval 50ms >out
    [ "$(wc -l <out)" = 2 ]
    with_tty "{ sleep 0.5; printf q; } | cule-ipc top --count 2 --interval 50ms" >out
    contains out "seen/top"
'

test_case 'hz: the rate that is published' '
    start p cule-ipc pub pulse/x 0123456789 --repeat 0 --rate 200
    cule-ipc hz "pulse/#" --count 1 --interval 1s --json >out
    jq -e ".rate_hz > 150 and .rate_hz < 250 and .bytes_per_s > 1500 and .max_ms < 500" out
    cule-ipc hz "pulse/#" --count 1 --interval 300ms >out
    contains out "Hz, .*jitter"
    cule-ipc hz nothing/x --count 1 --interval 100ms >out
    contains out "nothing on"
'

test_case 'stats: text, JSON, Prometheus' '
    cule-ipc pub seen/x y
    cule-ipc stats >out
    contains out "^published.[1-9]"
    cule-ipc stats --json | jq -e ".published >= 1"
    cule-ipc stats --prometheus >out
    contains out "^# TYPE .*counter"
    contains out "published.* [1-9]"
'

test_case 'log-level: told, set, refused' '
    cule-ipc log-level >out
    is out info
    cule-ipc log-level debug || cule-ipc log-level warning
    cule-ipc log-level >out
    lacks out info
    cule-ipc log-level info --json >out
    jq -e ".before" out
    status 2 cule-ipc log-level degub 2>err
    contains err "did you mean .debug"
'

test_case 'tap: what passes on a pattern, for people, as JSON, as a recording' '
    start t cule-ipc tap "tapped/#" --count 1
    start j cule-ipc tap "tapped/#" --count 1 --format json
    start f cule-ipc tap "tapped/#" --count 1 --format frames
    wait_for "[ \$(cule-ipc list clients | grep -c \"cule-ipc tap\") = 3 ]"
    wait_for "cule-ipc pub tapped/a body; gone $t_pid && gone $j_pid && gone $f_pid"
    contains "$TAP_DIR/t.out" "tapped/a.*body"
    contains "$TAP_DIR/j.out" "\"topic\":\"tapped/a\""
    cule-ipc decode <"$TAP_DIR/f.out" >out
    contains out "\"kind\":\"hello\""
    contains out "\"kind\":\"mark\""
    contains out "\"topic\":\"tapped/a\""
'

test_case 'explain: a drop, with its topic, its limit and what to change' '
    mkfifo p
    cule-ipc sub small/x >p &
    exec 4<p
    wait_for "cule-ipc list subscriptions | grep -q small/x"
    wait_for "seq 200000 | cule-ipc pub small/x --format lines; cule-ipc stats --json | jq -e .dropped\>0"
    cule-ipc explain >out
    contains out "dropped [0-9]+ messages on .small/x.*limit"
    cule-ipc explain "other/#" >out 2>err
    lacks out small/x
    contains err "nothing was dropped"
    cule-ipc explain --json >out
    jq -es "any(.[]; .what == \"drop\" and .topic == \"small/x\" and .count > 0)" out
'

test_case 'explain --follow tells of what happens next' '
    start e cule-ipc explain --follow --last 0
    wait_for "cule-ipc list clients | grep -q \"cule-ipc explain\""
    wait_for "cule-ipc request nobody/there x; [ -s $TAP_DIR/e.out ]"
    contains "$TAP_DIR/e.out" "nobody/there"
    stop e
    [ "$stopped" = 0 ]
'

test_case 'errors are JSON objects with --json' '
    status 4 cule-ipc list --json --bus "unix:$PWD/none" 2>err
    jq -e ".error and .code and .message" err
'

tap_done
