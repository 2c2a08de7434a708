#!/usr/bin/env bash
# The lint scripts find what they are for: a small tree with one offence each is held against them.
. "${0%/*}/../lib/tap.sh"

# A tree of its own, with a file of the given name (several levels) and text in it.
tree() {
    mkdir -p tests/unit lib/base lib/wire lib/io lib/core/bus cmd/cule-x man/man1 completions
    cp -r "$TAP_ROOT/tests/lib" "$TAP_ROOT/tests/lint" tests/
    cp "$TAP_ROOT/.clang-format" .
    cp "$TAP_ROOT/completions/generate" completions/
    rm -f tests/lib/*.c
}
plant() {
    mkdir -p "$(dirname "$1")"
    printf '%b' "$2" >"$1"
}
# lint SCRIPT CASE: the case with that word in its name fails, and names the planted file.
caught() {
    tests/lint/"$1".sh >out.tap 2>&1 || true
    contains out.tap "^not ok [0-9]+ - .*$2"
    contains out.tap "$3"
}
clean() {
    tests/lint/"$1".sh >out.tap 2>&1 || cat out.tap
    contains out.tap '^1\.\.[1-9]'
    lacks out.tap '^not ok'
}

layers() {
    tree
    clean layers
    plant lib/base/a.c '/* A. */\n#include "wire/frame.h"\n'
    caught layers 'base includes' lib/base/a.c:2
    plant lib/wire/a.c '/* A. */\n#include "io/link.h"\n'
    caught layers 'wire includes' lib/wire/a.c:2
    plant lib/core/bus/a.c '/* A. */\n#include "io/link.h"\n#include <unistd.h>\nint x(void) { return clock_gettime(0, 0); }\n'
    caught layers 'core includes' lib/core/bus/a.c:2
    caught layers 'core has no clock' lib/core/bus/a.c:4
    plant lib/store/a.c '/* A. */\n#include "crypt/key.h"\n#include <uv.h>\n'
    caught layers 'adapters' lib/store/a.c:2
    caught layers 'foreign' lib/store/a.c:3
    plant lib/io/a.c '/* getenv("X") is fine in a comment */\nint y(void) { printf("x"); }\n'
    caught layers 'environment' lib/io/a.c:2
    lacks out.tap lib/io/a.c:1
}
sizes() {
    tree
    clean sizes
    { echo '/* Long. */' && seq -f '/* %g */' 600; } >lib/base/long.c
    caught sizes 'no file' lib/base/long.c
    { printf '/* Long. */\nint f(void)\n{\n' && yes '    ;' | head -n 71 && echo '}'; } >lib/base/f.c
    caught sizes 'no function' 'lib/base/f.c:2: int f: 71'
    plant lib/base/mute.c 'int x;\n'
    caught sizes 'sentence' lib/base/mute.c
}
words() {
    tree
    clean words
    plant lib/base/a.c '/* strcpy() in a comment; "strcpy(" in a string is fine too. */\nconst char *s = "strcpy(a)";\n'
    clean words
    plant lib/base/a.c '/* A. */\nvoid f(char *a) { strcpy(a, "b"); }\n'
    caught words 'no limit' lib/base/a.c:2
    plant lib/base/b.h '/* B. */\ntypedef struct b b_t;\n'
    caught words typedef lib/base/b.h:2
    plant lib/base/c.c "/* TO""DO: more. */\nint c;  \n\tint d;\n"
    caught words unfinished lib/base/c.c:1
    caught words blanks lib/base/c.c:2
    plant lib/base/d.c "/* See /ro""ot/x. */\nint d;"
    caught words paths lib/base/d.c:1
    caught words newlines lib/base/d.c
    plant lib/base/e.c '/* E. */\nint e(void) { return cule_err_set(0, 1, "gone."); }\n'
    caught words 'full stop' lib/base/e.c:2
    plant tests/cli/a.sh '#!/bin/sh\n    sleep 1\n    ! false\n'
    caught words 'do not sleep' tests/cli/a.sh:2
    caught words 'fails CMD' tests/cli/a.sh:3
}
style() {
    need clang-format shellcheck shfmt
    tree
    plant lib/base/a.c '/* A. */\nint  a;\n'
    caught style 'C is formatted' lib/base/a.c
    plant tests/cli/a.sh '#!/bin/sh\nif true; then\n  rm $1\nfi\n'
    caught style shellcheck tests/cli/a.sh:3
    caught style 'shell is formatted' tests/cli/a.sh
    plant lib/base/b.h '/* B. */\n#ifndef CULE_B_H\n#define CULE_B_H\nvoid b(size_t n);\n#endif\n'
    caught style 'compiles alone' lib/base/b.h
    plant lib/base/c.h '/* C. */\n'
    caught style guard lib/base/c.h
}
manual() {
    need mandoc
    tree
    page='.Dd November 21, 2026\n.Dt CULE-X 1\n.Os\n.Sh NAME\n.Nm cule-x\n.Nd x\n.Sh SUBCOMMANDS\n.Ss go\n.Bl -tag -width Ds\n'
    common='.Sh OPTIONS\n.Bl -tag -width Ds\n.It Fl v , Fl Fl verbose\nx\n.It Fl Fl json\nx\n.It Fl Fl timeout\nx\n'
    common="$common.It Fl h , Fl Fl help\nx\n.It Fl V , Fl Fl version\nx\n.El\n"
    mkdir -p bin
    printf '%s\n' '#!/bin/sh' 'case $1 in' '    --dump-options) cat <<END' >bin/cule-x
    printf 'program\tcule-x\t1\tx\noption\t-\t-\tjson\tflag\t-\tnone\t-\t-\t-\tx\ncommand\tgo\tx\t-\tx\noption\tgo\tf\tfast\tu64\tN\tnone\t-\t7\t-\tbe fast\n' >>bin/cule-x
    printf '%s\n' END ';;' '    *) echo " --fast N" ;;' 'esac' >>bin/cule-x
    chmod +x bin/cule-x
    export O=$PWD
    plant man/man1/cule-x.1 "$page.It Fl f , Fl Fl fast Ar N\nthe default is 7\n.El\n$common"
    clean man
    plant man/man1/cule-x.1 "$page.It Fl f , Fl Fl fast Ar N\nfast\n.El\n$common"
    caught man 'option table agree' 'its default, 7, is not told'
    plant man/man1/cule-x.1 "$page.It Fl Fl fast Ar N\n7\n.It Fl Fl slow\nx\n.El\n.Ss stay\n$common"
    caught man 'option table agree' 'no option --slow'
    contains out.tap 'short form'
    contains out.tap 'no such subcommand'
    plant man/man1/cule-x.1 "$page.El\n.Xr cule-y 1\n.Foo\n$common"
    caught man 'option table agree' '--fast of go is not documented'
    caught man 'pages refer' 'cule-y\(1\) does not exist'
    caught man 'mandoc' 'Foo'
}
fresh() {
    tree
    mkdir -p bin
    cp "$TAP_O/bin/cule-ipc" bin/
    rm -r cmd/cule-x
    mkdir cmd/cule-ipc
    export O=$PWD
    completions/generate bin/cule-ipc completions
    clean fresh
    echo '# by hand' >>completions/fish/cule-ipc.fish
    caught fresh 'completions of cule-ipc are fresh' 'by hand'
    cp completions/bash/cule-ipc completions/bash/cule-gone
    caught fresh 'no completions but' cule-gone
}

test_case 'layers' layers
test_case 'sizes' sizes
test_case 'words' words
test_case 'style' style
test_case 'manual pages' manual
test_case 'generated files' fresh
tap_done
