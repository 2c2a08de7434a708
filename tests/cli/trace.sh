#!/usr/bin/env bash
# cule-ipc trace: spans across programs.
# shellcheck disable=SC2154 # start_ready sets NAME_pid
. "${0%/*}/../lib/tap.sh"
command -v python3 >/dev/null || skip_all 'python3 is not installed'

cat >"$TAP_DIR/spans.py" <<'END'
# Prints what is in a Chrome trace: "program parent-known name status" a line, after checking its form.
import json, sys
t = json.load(open(sys.argv[1]))
names = {e["pid"]: e["args"]["name"] for e in t["traceEvents"] if e["ph"] == "M"}
spans = [e for e in t["traceEvents"] if e["ph"] == "X"]
ids = {e["args"].get("span_id") for e in spans} - {None}
for e in spans:
    assert e["dur"] >= 0 and e["ts"] > 1.6e15
    assert e["args"].get("trace_id") is None or len(e["args"]["trace_id"]) == 32
    print(names[e["pid"]], e["args"].get("parent_id") in ids, e["name"], e["args"]["status"])
arrows = [e["ph"] for e in t["traceEvents"] if e["ph"] in "sf"]
assert arrows.count("s") == arrows.count("f")
print("traces", len({e["args"].get("trace_id") for e in spans}), "arrows", arrows.count("s"))
END

live() {
    start_ready inner cule-ipc serve --listen "unix:$PWD/inner" --each 'exit "$CULE_ARG0"' --name inner
    start_ready outer cule-ipc serve --listen "unix:$PWD/outer" --name outer \
        --each "cule-ipc call unix:$PWD/inner my 0x4001 --arg0 \"\$CULE_ARG0\""
    start_ready tracer cule-ipc trace "unix:$PWD/inner" "unix:$PWD/outer" --to trace.json --count 4
    cule-ipc call "unix:$PWD/outer" my 0x4000 --trace 2>err
    status 5 cule-ipc call "unix:$PWD/outer" my 0x4000 --arg0 5 2>err2
    wait_for "gone $tracer_pid"
    python3 "$TAP_DIR/spans.py" trace.json | sort >out
    printf '%s\n' 'inner True my/0x4001 ok' 'inner True my/0x4001 timeout' 'outer False my/0x4000 ok' \
        'outer False my/0x4000 timeout' 'traces 2 arrows 2' | sort | cmp - out
    id=$(sed 's/.*trace 00-\([0-9a-f]*\)-.*/\1/' err)
    contains trace.json "\"trace_id\":\"$id\""
}
test_case 'spans of two programs, the inner one below the outer one' live

off() {
    start_ready s cule-ipc serve --listen "unix:$PWD/s" --each 'printf "%s" "${CULE_TRACEPARENT:-none}"'
    cule-ipc call "unix:$PWD/s" my 0x4000 >out
    printf none | cmp - out
    start_ready tracer cule-ipc trace --lines "unix:$PWD/s"
    cule-ipc call "unix:$PWD/s" my 0x4000 >out
    contains out '^00-[0-9a-f]{32}-'
    wait_for "grep -q 'MY/\|my/0x4000' '$TAP_DIR/tracer.out'"
    cule-ipc call "unix:$PWD/s" cule trace-off
    wait_for "gone $tracer_pid"
    cule-ipc call "unix:$PWD/s" my 0x4000 >out
    printf none | cmp - out
}
test_case 'nothing is traced while nobody listens; trace-off ends it' off

workers() {
    start_ready s cule-ipc serve --listen "unix:$PWD/s" --name front --workers 1 \
        --frames 'exec cule-ipc serve --name back --each "printf %s \$CULE_TRACEPARENT"'
    start_ready tracer cule-ipc trace --lines "unix:$PWD/s" --count 1
    cule-ipc call "unix:$PWD/s" my 0x4000 >parent
    wait_for "gone $tracer_pid"
    span=$(sed 's/.*"span":"\([0-9a-f]*\)".*/\1/' "$TAP_DIR/tracer.out")
    contains parent "^00-[0-9a-f]{32}-$span-01$"
}
test_case 'a worker behind frames is called with the span of the server' workers

recorded() {
    start_ready s cule-ipc serve --listen "unix:$PWD/s" --each 'exit "$CULE_ARG0"'
    start_ready rec cule-ipc record --to seen.rec --listen "unix:$PWD/in" --connect "unix:$PWD/s"
    cule-ipc call "unix:$PWD/in" my 0x4000 --trace 2>err
    status 1 cule-ipc call "unix:$PWD/in" my 0x4000 --arg0 1 2>/dev/null
    stop rec
    cule-ipc trace seen.rec >trace.json 2>told
    python3 "$TAP_DIR/spans.py" trace.json >out
    printf 'cule-ipc call False my/0x4000 ok\ntraces 1 arrows 0\n' | cmp - out
    cule-ipc trace -v seen.rec >trace.json 2>told
    contains told '1 requests were part of no trace'
    cule-ipc trace --all seen.rec --to all.json
    python3 "$TAP_DIR/spans.py" all.json | sort >out
    contains out '^cule-ipc call False my/0x4000 negative$'
    head -c 700 seen.rec >short
    rc=0
    cule-ipc trace --all short >short.json 2>err || rc=$?
    python3 "$TAP_DIR/spans.py" short.json >out
}
test_case 'spans from a recording, whole JSON from a truncated one too' recorded

stopped_by_signal() {
    start_ready s cule-ipc serve --listen "unix:$PWD/s" --each true
    start_ready tracer cule-ipc trace "unix:$PWD/s" --to trace.json
    cule-ipc call "unix:$PWD/s" my 0x4000
    wait_for 'cule-ipc call "unix:$PWD/s" cule stats | grep -q "\"replies_total\":1"'
    stop tracer INT
    [ "$stopped" = 0 ]
    python3 "$TAP_DIR/spans.py" trace.json >out
    contains out 'traces 1'
    status 4 cule-ipc trace "unix:$PWD/nobody" --for 1s >out 2>err
    contains err 'nobody'
}
test_case 'an interrupted listener writes what it has' stopped_by_signal

tap_done
