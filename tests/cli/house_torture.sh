#!/usr/bin/env bash
# Programs and unit tests with each allocation failing in turn: tests/lib/torture.sh says how. The rows below are
# programs that finish quickly and by themselves.
#
# Not here: unit tests that start threads or processes of their own (ring, mpmc, workers, spawn, loop, link: a failed
# allocation in a test's own thread is the test's crash, not the library's); wire_decode, whose test allocates for
# itself (the decoder is reached through cule-ipc decode); libuv, sqlite and GnuTLS, which have
# their own such tests, are reached through the programs.
# timeout: 400
. "${0%/*}/../lib/tap.sh"
TAP_TIMEOUT=120
case ${BUILD:-release} in
    asan | tsan | fuzz) skip_all 'a sanitizer has its own malloc' ;;
esac

torture() {
    export O=$TAP_O
    "$TAP_ROOT/tests/lib/torture.sh" "$@" | tee report
    # Something must have been failed, or the run proves nothing.
    contains report '^torture: (the first )?[1-9][0-9]* allocations failed'
}
frames() {
    cat >frames.json <<'END'
{"kind":"request","service":"bus","op":"list","id":"1","payload_text":"x"}
{"kind":"event","service":"my","op":16384,"payload_json":{"a":[1,2,3],"b":"text"}}
END
}
encode() {
    frames
    TORTURE_IN=$PWD/frames.json torture -n 600 cule-ipc encode
}
decode() {
    frames
    cule-ipc encode <frames.json >frames.bin
    TORTURE_IN=$PWD/frames.bin torture -n 600 cule-ipc decode
}

# The tool itself: it sees a crash, a hang and an orderly exit for what they are.
the_tool() {
    export O=$TAP_O
    cat >crash.c <<'END'
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char *p = malloc(10), *q;
    if (!p) return 4;
    q = malloc(10);
    if (!q && argv[1][0] == 'h') pause();
    if (!q && argv[1][0] == 'o') return 4;
    *(volatile char *)q = 0;
    return argc == 0;
}
END
    "${CC:-gcc}" -O0 -fno-builtin -o crash crash.c
    status 1 "$TAP_ROOT/tests/lib/torture.sh" ./crash c >out
    contains out 'crash .*with allocation 2 failing'
    status 1 "$TAP_ROOT/tests/lib/torture.sh" -t 1 ./crash h >out
    contains out 'hang .*with allocation 2 failing'
    status 0 "$TAP_ROOT/tests/lib/torture.sh" ./crash o >out
    contains out 'torture: 2 allocations failed'
}

test_case 'torture tells crash, hang and orderly exit apart' the_tool
test_case 'cule-ipc --help' 'torture cule-ipc --help'
test_case 'cule-ipc with a wrong option' 'torture cule-ipc --json --nonsense'
has() { cule-ipc --dump-options | grep -qP "^command\t$1\t"; }
has encode && test_case 'cule-ipc encode' encode
has decode && test_case 'cule-ipc decode' decode
for t in cli_opt wire_frame wire_message wire_mirror base_json; do
    [ ! -x "$TAP_O/unit/$t" ] || test_case "unit/$t" "torture -n 1500 $TAP_O/unit/$t"
done
tap_done
