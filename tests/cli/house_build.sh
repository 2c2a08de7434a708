#!/usr/bin/env bash
# The makefile: reproducible builds, install and uninstall, the archive, package checks.
# timeout: 600
. "${0%/*}/../lib/tap.sh"
TAP_TIMEOUT=400

# A copy of the tree as it is, without what was built.
copy() {
    mkdir -p "$1"
    tar -C "$TAP_ROOT" --exclude=./build --exclude=./.git -cf - . | tar -C "$1" -xf -
}
mk() { env -u O -u MAKEFLAGS -u MAKELEVEL -u BUILD make --no-print-directory "$@"; }

reproducible() {
    [ "${BUILD:-release}" = release ] || skip "only the release build is held to it"
    # Two places with names of different lengths, one of them built in parallel and with another O.
    copy a
    copy another/place/altogether
    mk -C a CC="${CC:-gcc}" -j2 >log 2>&1 || { tail log && false; }
    mk -C another/place/altogether CC="${CC:-gcc}" O=elsewhere -j"$(nproc)" >log 2>&1 || { tail log && false; }
    same a/build/libcule.a another/place/altogether/elsewhere/libcule.a
    for p in a/build/bin/*; do
        same "$p" "another/place/altogether/elsewhere/bin/${p##*/}"
        strings -a "$p" >text
        lacks text "$PWD"
    done
    mk -C a CC="${CC:-gcc}" >again
    lacks again ' -c -o '
    mkdir "$TAP_DIR/tree"
    mv a "$TAP_DIR/tree/a"
}
installed() {
    cd "$TAP_DIR/tree/a" 2>/dev/null || skip 'there is no fresh build'
    mk CC="${CC:-gcc}" install PREFIX=/opt/cule DESTDIR="$TAP_DIR/dest" >"$TAP_DIR/log"
    cd "$TAP_DIR/dest/opt/cule"
    for p in "$TAP_ROOT"/cmd/*/main.c; do
        p=$(basename "$(dirname "$p")")
        [ -x "bin/$p" ]
        [ -s "share/man/man1/$p.1" ] || [ ! -e "$TAP_ROOT/man/man1/$p.1" ]
        [ -s "share/bash-completion/completions/$p" ]
        [ -s "share/zsh/site-functions/_$p" ]
        [ -s "share/fish/vendor_completions.d/$p.fish" ]
        "bin/$p" --version | grep -q "^$p [0-9]"
    done
    [ -s lib/libcule.a ]
    [ -s include/cule/wire/frame.h ]
    cat >"$TAP_DIR/use.c" <<'END'
#include "base/err.h"
#include "wire/frame.h"
#include <stdio.h>
int main(void) { puts(cule_err_text(CULE_ENOMEM)); return 0; }
END
    export PKG_CONFIG_PATH=$PWD/lib/pkgconfig
    # A prefix under DESTDIR is told to pkg-config, as packagers do.
    # shellcheck disable=SC2046
    "${CC:-gcc}" -o "$TAP_DIR/use" "$TAP_DIR/use.c" $(pkg-config --define-variable=prefix="$PWD" --cflags --libs cule)
    "$TAP_DIR/use" >"$TAP_DIR/use.out"
    is "$TAP_DIR/use.out" 'out of memory'
}
headers_installed() {
    cd "$TAP_DIR/dest/opt/cule/include/cule" 2>/dev/null || skip 'nothing was installed'
    find . -name '*.h' | while IFS= read -r h; do
        # shellcheck disable=SC2046
        echo "#include \"$h\"" | "${CC:-gcc}" -std=gnu11 -D_GNU_SOURCE -DCULE_VERSION='""' -I. \
            $(pkg-config --cflags libuv sqlite3 libsodium gnutls) -fsyntax-only -x c - || echo "$h"
    done >"$TAP_DIR/bad"
    [ ! -s "$TAP_DIR/bad" ] || tap_fail "$(cat "$TAP_DIR/bad")"
}
uninstalled() {
    cd "$TAP_DIR/tree/a" 2>/dev/null || skip 'there is no fresh build'
    : >"$TAP_DIR/dest/opt/cule/bin/not-ours"
    mk uninstall PREFIX=/opt/cule DESTDIR="$TAP_DIR/dest"
    find "$TAP_DIR/dest" -type f >left
    is left "$TAP_DIR/dest/opt/cule/bin/not-ours"
}
archive() {
    git -C "$TAP_ROOT" rev-parse HEAD >/dev/null 2>&1 || skip 'not a git clone'
    git clone -q "$TAP_ROOT" one
    git clone -q "$TAP_ROOT" two
    mk -C one dist >log 2>&1 && mk -C two dist >log 2>&1
    same one/build/cule-*.tar.gz two/build/cule-*.tar.gz
    tar -tzf one/build/cule-*.tar.gz >list
    contains list '^cule-[0-9.]+/Makefile$'
}

# Package checks, against a dpkg-query, id and apt-get of our own.
fake_apt() {
    mkdir -p fake
    cat >fake/dpkg-query <<END
#!/bin/sh
cat $PWD/have
END
    cat >fake/apt-get <<END
#!/bin/sh
echo "apt-get \$*" >>$PWD/apt.log
exit 0
END
    printf '#!/bin/sh\necho %s\n' "$1" >fake/id
    chmod +x fake/*
    : >apt.log
    PATH=$PWD/fake:$PATH
    mk -C "$TAP_ROOT" -p -n lib 2>/dev/null | sed -n 's/^DEPS := //p' | tr ' ' '\n' | sed '/^$/d; s/^/installed /' >have
}
nothing_missing() {
    fake_apt 1000
    mk -C "$TAP_ROOT" -s deps >out 2>&1
    cmp -s out /dev/null
    [ ! -s apt.log ]
}
missing_without_root() {
    fake_apt 1000
    sed -i '/libuv1-dev/d' have
    status 2 mk -C "$TAP_ROOT" deps >out 2>&1
    contains out 'apt-get install libuv1-dev$'
    [ ! -s apt.log ]
}
missing_as_root() {
    fake_apt 0
    sed -i '/libuv1-dev/d; s/installed libsodium-dev/deinstalled libsodium-dev/' have
    mk -C "$TAP_ROOT" -s deps >out 2>&1
    contains apt.log ' install .*libuv1-dev libsodium-dev$'
    lacks apt.log ' update'
    lacks apt.log sqlite
}
stale_lists() {
    fake_apt 0
    sed -i '/libuv1-dev/d' have
    cat >fake/apt-get <<END
#!/bin/sh
echo "apt-get \$*" >>$PWD/apt.log
case "\$*" in *update) : >$PWD/updated ;; esac
[ -e $PWD/updated ]
END
    mk -C "$TAP_ROOT" -s deps >out 2>&1 || { cat out && false; }
    contains apt.log ' update'
    [ "$(grep -c ' install ' apt.log)" = 2 ]
}
demo_needs_little() {
    mk -C "$TAP_ROOT" -n demo >out 2>&1
    lacks out 'libcmocka|shellcheck|libzmq'
}

test_case 'two builds of one tree are identical, wherever they lie' reproducible
test_case 'make install puts everything where it is looked for' installed
test_case 'installed headers compile alone' headers_installed
test_case 'make uninstall takes away what is ours and nothing else' uninstalled
test_case 'two archives of one commit are identical' archive
test_case 'make deps says and does nothing where nothing is missing' nothing_missing
test_case 'make deps without root names what is missing and fails' missing_without_root
test_case 'make deps as root installs what is missing and nothing else' missing_as_root
test_case 'package lists are fetched only when the ones there do not do' stale_lists
test_case 'make demo asks for no test or bench packages' demo_needs_little
tap_done
