#!/usr/bin/env bash
# The C programs of cule_link(3) and cule_frame(3), compiled against the library as it is installed, and run.
# timeout: 300
. "${0%/*}/../lib/tap.sh"

prefix=$TAP_DIR/prefix

# The literal block behind `.\" COMPILE name` of a page.
program() {
    awk -v name="$2" '
        $0 == ".\\\" COMPILE " name { found = 1 }
        found && /^\.Bd/ { inside = 1; next }
        inside && /^\.Ed/ { exit }
        inside { gsub(/\\-/, "-"); gsub(/\\e/, "\\"); print }
    ' "$TAP_ROOT/man/man3/$1.3" >"$TAP_DIR/$2.c"
    [ -s "$TAP_DIR/$2.c" ] || tap_fail "$1(3) has no program '$2'"
}

build() {
    local flags
    flags=$(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --cflags --libs cule)
    # shellcheck disable=SC2086
    "${CC:-cc}" -Wall -Wextra -Werror -o "$TAP_DIR/$1" "$TAP_DIR/$1.c" $flags
}

installed() {
    make -C "$TAP_ROOT" O="$(dirname "$(dirname "$(command -v cule-ipc)")")" PREFIX="$prefix" install >install.log 2>&1
    [ -e "$prefix/lib/libcule.a" ]
    [ -e "$prefix/include/cule/io/link.h" ]
}

links() {
    program cule_link serve
    program cule_link ask
    build serve
    build ask
    "$TAP_DIR/ask" "exec:$TAP_DIR/serve" 'hello there' >out
    is out 'HELLO THERE'
    start upper "$TAP_DIR/serve" "unix:$CULE_RUN/upper"
    wait_for "[ -S $CULE_RUN/upper ]"
    "$TAP_DIR/ask" "unix:$CULE_RUN/upper" 'over a socket' >out
    is out 'OVER A SOCKET'
    cule-ipc call "unix:$CULE_RUN/upper" my 0x4000 --payload text >out
    contains out TEXT
    status 4 "$TAP_DIR/ask" "unix:$CULE_RUN/nobody" x 2>err
    contains err 'nobody listens'
}

frames() {
    program cule_frame events
    build events
    printf '%s\n' '{"kind":"event","service":"my","op":16384,"payload_text":"one"}' \
        '{"kind":"request","service":"my","op":16384,"id":"1"}' | cule-ipc encode >in
    "$TAP_DIR/events" <in 2>err | cule-ipc decode >out
    is out '{"kind":"event","service":"my","op":16384,"payload_text":"one"}'
    is err '1 events'
}

test_case 'the library installs' installed
# A library that was built for a sanitizer wants its runtime.
if grep -qaE '__(asan|tsan|sanitizer)_' "$prefix/lib/libcule.a"; then
    tap_done
fi
test_case 'cule_link(3): a server and a client' links
test_case 'cule_frame(3): a filter' frames
tap_done
