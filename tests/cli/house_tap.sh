#!/usr/bin/env bash
# The tests' own tools: a case that fails, hangs, skips or leaves processes behind is reported as what it is.
. "${0%/*}/../lib/tap.sh"

# Runs a small script of cases, its TAP in tap.out.
script() {
    printf '. "%s/tests/lib/tap.sh"\n%s\n' "$TAP_ROOT" "$1" >script.sh
    code=0
    bash script.sh >tap.out 2>&1 || code=$?
}

test_case 'cases that pass and fail are told apart' '
    script "test_case good true; test_case bad false; tap_done"
    [ "$code" = 1 ]
    contains tap.out "^ok 1 - good"
    contains tap.out "^not ok 2 - bad"
    contains tap.out "^1\.\.2"
'
test_case 'any failing command of a body fails the case' '
    script "test_case bad \"false; true\"; tap_done"
    contains tap.out "^not ok 1"
'
test_case 'a script that ends early is no success' '
    script "test_case good true; exit 0"
    [ "$code" != 0 ]
    contains tap.out "^Bail out"
'
test_case 'a case has a deadline' '
    script "TAP_TIMEOUT=1; test_case slow \"sleep 30\"; test_case next true; tap_done"
    contains tap.out "^not ok 1 - slow"
    contains tap.out "timed out after"
    contains tap.out "^ok 2 - next"
'
test_case 'a skipped case is no passed one' '
    script "test_case s \"skip because\"; test_case n \"need no-such-program\"; tap_done"
    contains tap.out "^ok 1 - s # SKIP because"
    contains tap.out "^ok 2 - n # SKIP no-such-program is not installed"
'
test_case 'what a case starts dies with it, in a session of its own too' '
    printf "#!/bin/sh\necho \$\$ >$PWD/pid\nexec sleep 300\n" >stay
    chmod +x stay
    script "test_case s \"(setsid $PWD/stay &); wait_for [ -s $PWD/pid ]\"; tap_done"
    contains tap.out "^ok 1"
    gone "$(cat pid)"
'
test_case 'files are compared byte for byte, NUL too' '
    printf "a\0b" >a; printf "a\0c" >b; cp a c
    same a c
    fails same a b
    printf "x\n" >x
    is x x
    fails is x y
'
test_case 'wait_for waits, and gives up' '
    (sleep 0.2; : >there) &
    wait_for [ -e there ]
    fails wait_for -t 1 [ -e nowhere ]
'
test_case 'a started program is ready, stopped and its status known' '
    start_ready demo bash -c "trap \"exit 3\" TERM; echo >&\$CULE_READY_FD; while :; do sleep 0.05; done"
    stop demo
    [ "$stopped" = 3 ]
    fails start_ready broken bash -c "echo broken >&2; exit 1"
'
test_case 'a terminal can be had' '
    with_tty "tty" >out
    contains out /dev/pts
'

# The runner itself, over programs made up here.
fake() {
    mkdir -p "tests/$1"
    printf '#!/bin/sh\n%s\n' "$3" >"tests/$1/$2.sh"
    chmod +x "tests/$1/$2.sh"
}
runner() {
    mkdir -p tests
    cp "$TAP_ROOT/tests/run.sh" tests/
    code=0
    O=$PWD/o TAP_SCALE=1 tests/run.sh "$@" >run.out 2>&1 || code=$?
    tail -n 1 run.out >last
}
test_case 'the runner counts passed, failed and skipped' '
    fake cli a "echo ok 1; echo ok 2 \# SKIP why; echo not ok 3 \# SKIP cmocka; echo 1..3"
    fake cli b "echo ok 1; echo not ok 2 - broken; echo 1..2; exit 1"
    runner
    [ "$code" = 1 ]
    is last "2 passed, 1 failed, 2 skipped"
    contains run.out "not ok 2 - broken"
    runner cli/a
    [ "$code" = 0 ]
    is last "1 passed, 0 failed, 2 skipped"
'
test_case 'the runner is not deceived by programs that die, hang or stay silent' '
    fake cli died "echo ok 1; echo 1..2; kill -9 \$\$"
    fake cli silent "exit 0"
    fake cli short "echo 1..2; echo ok 1"
    fake cli late "echo ok 1; echo 1..1; exit 1"
    TEST_TIMEOUT=1 fake cli hangs "# timeout: 1
echo 1..1; exec sleep 30"
    mkdir -p tests/unit; : >tests/unit/notbuilt.c
    runner
    is last "3 passed, 6 failed, 0 skipped"
    runner no-such-test
    is last "0 passed, 1 failed, 0 skipped"
'
test_case 'an example is one test' '
    mkdir examples
    printf "#!/bin/sh\nexit 0\n" >examples/a.sh; printf "#!/bin/sh\nexit 1\n" >examples/b.sh
    printf "#!/bin/sh\nexit 77\n" >examples/c.sh; chmod +x examples/*.sh
    runner
    is last "1 passed, 1 failed, 1 skipped"
'
tap_done
