#!/usr/bin/env bash
# cule-ipc encode and decode.
. "${0%/*}/../lib/tap.sh"

lines() {
    cat <<'END'
{"kind":"request","service":"STOR","op":3,"op_name":"read","id":"1","arg0":"18446744073709551615","payload_text":"hello"}
{"kind":"event","priority":"low","service":"BUS","op":771,"op_name":"deliver","topic":"a/b","payload_text":"x"}
{"kind":"event","service":"BUS","op":771,"op_name":"deliver","topic":"c","payload_json":{"n":1}}
{"kind":"reply","op":32768,"op_name":"ok","id":"1","payload_b64":"AAEC/w=="}
END
}

round_trip() {
    lines >in
    cule-ipc encode in >frames
    cule-ipc decode --json frames >out
    same in out
    cule-ipc encode <out | cmp - frames
    head -c 2 frames >magic
    printf CU | cmp - magic
}
test_case 'lines become frames and the same lines again' round_trip

large_message() {
    head -c 1048576 /dev/urandom >body
    printf '{"kind":"event","service":"my","op":16384,"payload_b64":"%s"}\n' "$(base64 -w0 body)" >in
    cule-ipc encode in >frames
    cule-ipc decode --json frames >pieces
    [ "$(wc -l <pieces)" = 16 ]
    cule-ipc decode --json --messages frames >out
    [ "$(wc -l <out)" = 1 ]
    sed 's/.*"payload_b64":"//;s/"}$//' out | base64 -d | cmp - body
}
test_case 'a payload of 1 MiB is several frames, and one message with --messages' large_message

bad_lines() {
    {
        lines | head -n 1
        echo '{"kind":"request","op":"nonsense"}'
        lines | tail -n 1
    } >in
    status 3 cule-ipc encode in >some 2>err
    contains err "in line 2"
    contains err "op"
    status 3 cule-ipc encode --keep-going in >both 2>err
    cule-ipc decode --json both >out
    [ "$(wc -l <out)" = 2 ]
    printf '{"kind":"event"' | status 3 cule-ipc encode >none 2>err
    contains err 'line 1.*column'
    [ ! -s none ]
}
test_case 'a bad line is named by line, column and key; --keep-going leaves it out' bad_lines

filters() {
    lines | cule-ipc encode >frames
    cule-ipc decode --json --filter service=stor,op=read frames >out
    contains out '"hello"'
    [ "$(wc -l <out)" = 1 ]
    cule-ipc decode --json --filter kind=event,topic=a/+ frames >out
    [ "$(wc -l <out)" = 1 ]
    contains out '"a/b"'
    cule-ipc decode --json --filter topic=a/# --filter kind=reply frames >out
    [ "$(wc -l <out)" = 2 ]
    cule-ipc decode --json --filter id=1 frames >out
    [ "$(wc -l <out)" = 2 ]
    status 2 cule-ipc decode --filter colour=red frames 2>err
    contains err 'colour=red'
}
test_case 'filters: terms of one are and, several are or' filters

damage() {
    lines | cule-ipc encode >frames
    size=$(stat -c %s frames)
    # A bit flipped in each header byte of the second frame: the others are still there, and it is told.
    for at in 72 75 80 96 101 110; do
        cp frames broken
        printf '\377' | dd of=broken bs=1 seek="$at" conv=notrunc status=none
        cmp -s frames broken && continue
        status 3 cule-ipc decode --json broken >out 2>err
        contains err 'skipped'
        contains out '"hello"'
        contains out '"AAEC/w=="'
    done
    # Cut anywhere: what is whole is there, and the status tells of the rest.
    for cut in 1 63 64 65 71 72 100 $((size - 1)); do
        head -c "$cut" frames >short
        want=3
        [ "$cut" != 72 ] || want=0
        status "$want" cule-ipc decode --json short >out 2>err
        [ "$cut" = 72 ] || contains err 'skipped|cut short'
    done
    {
        head -c 1000 /dev/zero | tr '\0' C
        cat frames
    } >junk
    status 3 cule-ipc decode --json junk >out 2>err
    [ "$(wc -l <out)" = 4 ]
    contains err '1000 bytes'
}
test_case 'bit flips, cuts and junk are skipped, reported, and status 3' damage

follow() {
    lines | cule-ipc encode >frames
    head -c 100 frames >growing
    start tail cule-ipc decode --json --follow growing
    wait_for "grep -q hello '$TAP_DIR/tail.out'"
    tail -c +101 frames >>growing
    wait_for "grep -q AAEC '$TAP_DIR/tail.out'"
    same <(lines) "$TAP_DIR/tail.out"
    stop tail
}
test_case '--follow waits for the rest of a file, in the middle of a frame too' follow

human() {
    lines | cule-ipc encode >frames
    cule-ipc decode --human frames >out
    contains out 'request STOR read'
    lacks out '^\{'
    printf '{"kind":"event","service":"my","op":16384,"payload_b64":"%s"}\n' "$(printf '\033[31mred\007' | base64)" |
        cule-ipc encode | cule-ipc decode --human >out
    fails grep -q $'\033' out
}
test_case 'the view for people cannot be used to drive their terminal' human

tty_rules() {
    need python3
    lines | cule-ipc encode >frames
    lines >in
    status 2 with_tty 'cule-ipc encode in' >out
    with_tty 'cule-ipc decode frames' >out
    contains out 'request STOR read'
}
test_case 'on a terminal decode shows the view for people' tty_rules

magic() {
    need file
    lines | cule-ipc encode >frames
    file -m "$TAP_ROOT/lib/wire/cule.magic" frames >out
    contains out 'Cule frames, version 1, first a request'
    cule-ipc tee --mark rec <frames >copy
    file -m "$TAP_ROOT/lib/wire/cule.magic" rec >out
    contains out 'hello'
    head -c 4096 /dev/zero >zeros
    file -m "$TAP_ROOT/lib/wire/cule.magic" zeros >out
    lacks out Cule
}
test_case 'file(1) knows a stream of frames' magic

tap_done
