#!/usr/bin/env bash
# What an enemy, a full disk or a careless shell does to the subcommands that speak frames without a bus.
. "${0%/*}/../lib/tap.sh"

at=unix:$CULE_RUN/echo
start_ready echo cule-ipc serve --listen "$at" --each 'cat' --name echo

closed() {
    status 4 cule-ipc call "$at" my 0x4000 --payload x 2>err >&-
    contains err 'cannot write: Bad file descriptor'
    status 4 cule-ipc call "$at" my 0x4000 --payload - 2>err <&-
    contains err "cannot read 'standard input'"
    cule-ipc call "$at" my 0x4000 --payload x >out 2>&- <&-
    printf x | cmp - out
}
test_case 'closed standard descriptors are an error, and nothing else takes their place' closed

words() {
    status 2 cule-ipc call "$at" my 0x4000 --traceparent garbage 2>err
    contains err "'garbage' is no traceparent"
    status 2 cule-ipc call "$at" '' 1 2>err
    contains err "'' is no service"
}
test_case 'words that are nothing are quoted, with what was expected' words

cat >"$TAP_DIR/giant" <<'END'
while IFS= read -r line; do
    id=${line#*\"id\":\"}
    size=${line##*\"payload_}
    size=${size#*:}
    size=${size#\"}
    printf '{"id":"%s","payload_text":"' "${id%%\"*}"
    head -c "${size%%[!0-9]*}" /dev/zero | tr '\0' x
    printf '"}\n'
done
END
giants() {
    start_ready giant cule-ipc serve --listen "unix:$CULE_RUN/giant" --workers 1 --lines "sh $TAP_DIR/giant"
    for size in 70000 17000000 40000000; do
        cule-ipc call "unix:$CULE_RUN/giant" my 0x4000 --payload "$size" | wc -c >out
        is out "$size"
    done
    status 4 cule-ipc call "unix:$CULE_RUN/giant" my 0x4000 --payload 70000000 2>err
    contains err 'line that is too long'
    wait_for 'contains "$TAP_DIR/giant.err" "longer than"'
    cule-ipc call "unix:$CULE_RUN/giant" my 0x4000 --payload 10 >out
    grep -c "longer than" <"$TAP_DIR/giant.err" >"times"
    is times 1
}
test_case "a worker's line of any size up to 64 MiB arrives, a longer one is told once" giants

full() {
    seq 1000 | sed 's/.*/{"kind":"event","service":"my","op":16384,"arg0":"&"}/' | cule-ipc encode >all
    {
        (
            ulimit -f 8
            rc=0
            cule-ipc tee part <all 2>err || rc=$?
            echo "$rc" >&9
        )
    } 9>rc | cat >through
    is rc 4
    contains err "'part': cannot write: File too large"
    cmp all through
}
test_case 'a file at its limit ends the copy, not the stream' full

tap_done
