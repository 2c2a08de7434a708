#!/usr/bin/env bash
# cule-ipc record, replay, tee and merge.
# shellcheck disable=SC2154 # start sets NAME_pid
. "${0%/*}/../lib/tap.sh"

# A handler with all kinds of answers, the same each time it is asked.
handler='case $CULE_OP in
16384) tr a-z A-Z ;;
16385) echo "no, not $CULE_ARG0" >&2; exit 3 ;;
16386) head -c 300000 /dev/zero; cat ;;
esac'

# Three callers over a link that is recorded to $1, behind endpoint $2.
session() {
    cule-ipc call "$2" my 0x4000 --payload hello
    status 3 cule-ipc call "$2" my 0x4001 --arg0 18446744073709551615 2>/dev/null
    cule-ipc call "$2" my 0x4002 --payload tail
    printf 'a\nb\n' | cule-ipc call "$2" my 0x4000 --stream
}

between() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each "$handler"
    start_ready rec cule-ipc record --to seen.rec --listen "unix:$PWD/in" --connect "unix:$PWD/app"
    session seen.rec "unix:$PWD/in" >out
    session none "unix:$PWD/app" | cmp - out
    stop rec
    [ "$stopped" = 0 ]
    cule-ipc decode --json seen.rec >frames
    head -n 1 frames >first
    contains first '"kind":"hello".*cule-ipc record'
    # Each frame but the first HELLO has its MARK.
    [ "$(grep -c '"kind":"mark"' frames)" = "$(($(grep -vc '"kind":"mark"' frames) - 1))" ]
    [ "$(grep -c '"kind":"request"' frames)" = 4 ]
    cule-ipc decode --human seen.rec >view
    contains view '^[0-9:.]+ 1 > request my 0x4001'
    contains view '^[0-9:.]+ 1 < error'
}
test_case 'standing between two endpoints: nothing changes, everything is recorded' between

chain() {
    cule-ipc call "exec:cule-ipc record --to $PWD/seen.rec -- cule-ipc serve --each cat" my 0x4000 --payload chained >out
    printf chained | cmp - out
    cule-ipc decode --json --filter kind=request seen.rec >requests
    contains requests chained
    status 7 cule-ipc record --to status.rec -- sh -c 'exit 7' <"$TAP_DIR/never" >out
    status 2 cule-ipc record --to x.rec 2>err
    contains err 'nothing to record'
    status 2 cule-ipc record --to - -- cat 2>err
    status 1 cule-ipc record --to y.rec -- /does/not/exist 2>err
}
test_case 'standing before a command, as a filter; the status is the command'\''s' chain

story() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each "$handler"
    start_ready rec cule-ipc record --to seen.rec --listen "unix:$PWD/in" --connect "unix:$PWD/app"
    session seen.rec "unix:$PWD/in" >out
    stop rec
    cule-ipc replay seen.rec "unix:$PWD/app" --compare --as-fast-as-possible >told
    [ ! -s told ]
    # Against a handler that answers differently, each difference is shown.
    start_ready other cule-ipc serve --listen "unix:$PWD/other" --each 'case $CULE_OP in
        16384) cat ;; 16385) echo "yes, $CULE_ARG0" >&2; exit 4 ;; 16386) head -c 300000 /dev/zero; cat; echo ;; esac'
    status 1 cule-ipc replay seen.rec "unix:$PWD/other" --compare --as-fast-as-possible >told 2>err
    contains err 'messages sent: 4, answers that differ: 4'
    contains told 'request 1 my 0x4000'
    contains told "reply recorded 5 bytes 'HELLO'"
    contains told "now 5 bytes 'hello'"
    contains told 'error recorded malformed, now io'
    contains told 'stream recorded 300004 bytes'
    contains told 'now 300005 bytes'
    status 1 cule-ipc replay seen.rec "unix:$PWD/other" --compare --as-fast-as-possible --json >told 2>err
    [ "$(grep -c '^{"subject":' told)" = 4 ]
    # Answering from the recording: the same callers get the same.
    start_ready mock cule-ipc replay seen.rec --serve --listen "unix:$PWD/mock"
    session none "unix:$PWD/mock" >again
    cmp out again
    cule-ipc replay seen.rec "unix:$PWD/mock" --compare -f >told
    status 1 cule-ipc call "unix:$PWD/mock" my 0x4000 --payload 'never asked' 2>err
    contains err 'no such request'
}
test_case 'replay --compare finds the same story, and each difference; replay --serve answers' story

timing() {
    mark() { printf '{"kind":"mark","arg0":"%s","arg1":"%s"}\n' "$1" "$2"; }
    ask() { printf '{"kind":"request","service":"my","op":16384,"id":"%s"}\n' "$1"; }
    {
        echo '{"kind":"hello","arg1":"16777216"}'
        mark 1000000000000000000 0
        ask 1
        mark 1000000000400000000 0
        ask 3
    } | cule-ipc encode >made.rec
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each true
    took() {
        local begin=${EPOCHREALTIME/./}
        cule-ipc replay made.rec "unix:$PWD/app" "$@"
        echo $(((${EPOCHREALTIME/./} - begin) / 1000))
    }
    [ "$(took)" -ge 400 ]
    [ "$(took --speed 4)" -lt 390 ]
    [ "$(took --speed 4)" -ge 100 ]
    [ "$(took --as-fast-as-possible)" -lt 390 ]
    status 2 cule-ipc replay made.rec "unix:$PWD/app" --speed 0 2>err
}
test_case 'replay keeps the time, or a multiple of it' timing

order() {
    # What was asked after an answer is asked after that answer, however slow it is now.
    mark() { printf '{"kind":"mark","arg0":"%s","arg1":"%s"}\n' "$1" "$2"; }
    {
        mark 1000000000000000000 0
        echo '{"kind":"request","service":"my","op":16384,"id":"1"}'
        mark 1000000000000000001 1
        echo '{"kind":"reply","op":32768,"id":"1"}'
        mark 1000000000000000002 0
        echo '{"kind":"request","service":"my","op":16385,"id":"3"}'
    } | cule-ipc encode >made.rec
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each '[ "$CULE_OP" != 16384 ] || sleep 0.3; echo "$CULE_OP" >>order'
    cule-ipc replay made.rec "unix:$PWD/app" -f
    printf '16384\n16385\n' | cmp - order
}
test_case 'what was asked after an answer waits for that answer' order

killed() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each cat
    start_ready rec cule-ipc record --to seen.rec --listen "unix:$PWD/in" --connect "unix:$PWD/app"
    for i in 1 2 3 4 5; do cule-ipc call "unix:$PWD/in" my 0x4000 --payload "n$i" >out; done
    stop rec KILL
    cule-ipc decode --json --filter kind=request seen.rec >requests
    [ "$(wc -l <requests)" = 5 ]
    cule-ipc replay seen.rec "unix:$PWD/app" --compare -f
}
test_case 'a recorder that is killed leaves a whole recording' killed

damaged() {
    start_ready app cule-ipc serve --listen "unix:$PWD/app" --each cat
    start_ready rec cule-ipc record --to seen.rec --listen "unix:$PWD/in" --connect "unix:$PWD/app"
    for i in 1 2 3; do cule-ipc call "unix:$PWD/in" my 0x4000 --payload "n$i" >out; done
    stop rec
    grep -obUa CU seen.rec | cut -d: -f1 | sed -n '2p;3p;6p;$p' >headers
    while read -r header; do
        at=$((header + 20))
        cp seen.rec flipped
        byte=$(dd if=flipped bs=1 skip="$at" count=1 status=none | od -An -tu1)
        # shellcheck disable=SC2059
        printf "\\$(printf %o $((byte ^ 64)))" | dd of=flipped bs=1 seek="$at" conv=notrunc status=none
        fails cmp -s seen.rec flipped
        rc=0
        cule-ipc replay flipped "unix:$PWD/app" -f --timeout 5s 2>err || rc=$?
        [ "$rc" = 3 ]
        contains err 'skipped|does not hold'
        head -c "$at" seen.rec >short
        rc=0
        cule-ipc replay short "unix:$PWD/app" -f --timeout 5s 2>err || rc=$?
        case $rc in 0 | 3) ;; *) false ;; esac
    done <headers
}
test_case 'flipped and truncated recordings are replayed as far as they hold, and it is told' damaged

disk() {
    [ -c /dev/full ] || skip 'no /dev/full'
    status 4 cule-ipc record --to /dev/full -- cat </dev/null 2>err
    contains err '/dev/full'
}
test_case 'a full disk is an error' disk

tees() {
    for i in 1 2 3; do printf '{"kind":"event","service":"my","op":16384,"payload_text":"%s"}\n' "$i"; done | cule-ipc encode >in
    cule-ipc tee a b <in >out
    same in out
    same in a
    same in b
    cule-ipc tee --append a <in >out
    cat in in | cmp - a
    cule-ipc tee --mark m <in >out
    cule-ipc decode --json m >frames
    [ "$(grep -c '"kind":"mark"' frames)" = 3 ]
    {
        head -c 100 /dev/zero
        cat in
    } >junk
    status 3 cule-ipc tee c <junk >out 2>err
    contains err '100 bytes'
    same in c
    if [ -c /dev/full ]; then
        status 4 cule-ipc tee /dev/full d <in >out 2>err
        contains err '/dev/full'
        same in out
        same in d
    fi
}
test_case 'tee: frames to standard output and files; one full file does not stop the others' tees

merges() {
    mark() { printf '{"kind":"mark","arg0":"%s","arg1":"%s"}\n' "$1" "$2"; }
    event() { printf '{"kind":"event","service":"my","op":16384,"payload_text":"%s"}\n' "$1"; }
    {
        echo '{"kind":"hello"}'
        mark 100 0
        event one
        mark 300 0
        event three
    } | cule-ipc encode >a
    {
        echo '{"kind":"hello"}'
        mark 200 1
        event two
        mark 400 1
        event four
    } | cule-ipc encode >b
    cule-ipc merge a b --to both
    cule-ipc decode --json --filter kind=event both | sed 's/.*text":"\(.*\)"}/\1/' >order
    printf 'one\ntwo\nthree\nfour\n' | cmp - order
    # Link 0 of either file is a link of its own in the result; the direction stays.
    cule-ipc decode --json --filter kind=mark both | sed 's/.*arg1":"\(.*\)"}/\1/;s/.*arg0":"[0-9]*"}/0/' >links
    printf '0\n3\n0\n3\n' | cmp - links
    cule-ipc merge a b | cmp - both
    head -c 100 a >short
    status 3 cule-ipc merge short b --to some 2>err
    cule-ipc decode --json --filter kind=event some >out
    contains out four
}
test_case 'merge: by time, links kept apart' merges

nested() {
    # A recording that is itself sent over a recorded link: its marks are not taken for the recorder's.
    mark() { printf '{"kind":"mark","arg0":"%s","arg1":"%s"}\n' "$1" "$2"; }
    {
        echo '{"kind":"hello"}'
        mark 100 0
        echo '{"kind":"event","service":"my","op":16384,"payload_text":"inner"}'
    } |
        cule-ipc encode >inner.rec
    cule-ipc record --to outer.rec -- cat <inner.rec >out
    same inner.rec out
    cule-ipc decode --json outer.rec >frames
    contains frames '"kind":"mark".*"flags":\["nested"\].*payload_frames'
    cule-ipc merge outer.rec --to again.rec
    cule-ipc decode --json again.rec >frames2
    [ "$(grep -c inner frames)" = "$(grep -c inner frames2)" ]
    # A tap's stream: marks and frames inside DATA.
    printf '%s\n' '{"kind":"data","flags":["open","nested"],"id":"1","payload_frames":[{"kind":"mark","arg0":"100"},{"kind":"event","service":"my","op":16384,"payload_text":"tapped"}]}' |
        cule-ipc encode >tap
    cule-ipc merge tap --to tap.rec
    cule-ipc decode --json tap.rec >frames
    contains frames '"kind":"event".*tapped'
    contains frames '"kind":"mark","arg0":"100"'
}
test_case 'recordings inside recordings' nested

topic() {
    start_ready bus cule-ipc bus --listen "unix:$CULE_RUN/bus"
    start_ready rec cule-ipc record --topic 'a/#' --to seen.rec
    cule-ipc pub a/b -p first
    cule-ipc pub c/d -p elsewhere
    cule-ipc pub a/c -p second
    wait_for 'cule-ipc decode --json seen.rec | grep -q second'
    stop rec
    [ "$stopped" = 0 ]
    cule-ipc decode --json --filter op=publish seen.rec >frames
    [ "$(wc -l <frames)" = 2 ]
    start sub cule-ipc sub '#' -n 2
    wait_for 'cule-ipc list subscriptions | grep -q "#"'
    cule-ipc replay seen.rec "unix:$CULE_RUN/bus" -f
    wait_for "gone $sub_pid"
    printf 'first\nsecond\n' | cmp - "$TAP_DIR/sub.out"
}
test_case 'a topic of a bus is recorded, and replayed to it' topic

tap_done
