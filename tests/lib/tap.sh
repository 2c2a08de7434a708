# shellcheck shell=bash
# The shell tests' library: source it first, end with tap_done. Prints TAP on stdout.
#
#     #!/usr/bin/env bash
#     . "${0%/*}/../lib/tap.sh"
#     start_ready bus cule-ipc bus --listen "unix:$CULE_RUN/bus"
#     test_case 'a call without a service is a usage error' '
#         status 2 cule-ipc call 2>err
#         contains err "SERVICE is missing"
#     '
#     tap_done
#
# A case is a name and a body: the name of a function (which shellcheck reads), or text that is evaluated. It runs in a subshell under
# set -e in a directory of its own; its output is shown only when it fails. Results are compared as files:
# a shell variable loses NUL bytes. Nothing sleeps until something "should" be ready: wait_for has a deadline.
#
# Each script has a private TAP_DIR, removed at the end, with CULE_RUN in it. What a case starts is killed when
# the case ends, what the script starts outside of cases when the script ends: with all descendants, whichever
# session they moved to, by a mark in their environment. TAP_KEEP=1 keeps the directory.
#
# In a case:
#   status N CMD…            runs CMD, fails unless it exits with N
#   fails CMD…               runs CMD, fails if it succeeds. ("! CMD" does nothing under set -e: lint forbids it)
#   same A B                 fails unless two files are equal byte for byte; shows how they differ
#   is FILE TEXT             fails unless FILE is TEXT and a newline
#   contains FILE REGEX, lacks FILE REGEX
#   wait_for [-t S] COND     evaluates COND until it holds; fails after S (20) seconds
#   start NAME CMD…          runs CMD behind, NAME.out and NAME.err in TAP_DIR, its pid in ${NAME}_pid
#   start_ready NAME CMD…    the same, and waits until it wrote a newline to CULE_READY_FD
#   gone PID                 fails while the process lives (a zombie does not); combine with wait_for
#   stop NAME [SIGNAL]       SIGNAL (TERM), waits; the exit status is in $stopped
#   with_tty COMMAND         runs a shell command on a terminal of its own
#   skip REASON, need CMD…   ends the case as skipped; when a command is not installed
#   helper NAME              prints the path of a program built from tests/lib/NAME.c
# Outside: skip_all REASON, TAP_TIMEOUT=60 (seconds for a case), TAP_CWD=DIR (where cases run instead).

set -u
export LC_ALL=C
umask 022
TAP_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TAP_O=${O:-build}
[[ $TAP_O = /* ]] || TAP_O=$TAP_ROOT/$TAP_O
TAP_DIR=$(mktemp -d "${TMPDIR:-/tmp}/cule-t.XXXXXX") || exit 1
: "${TAP_TIMEOUT:=60}"
: "${TAP_SCALE:=1}" # sanitizers are slow: CI raises it
tap_id=$$.$RANDOM$RANDOM
tap_n=0
tap_failed=0
tap_case=0 # the case that runs, 0 outside
tap_ended=
stopped=
export PATH="$TAP_O/bin:$PATH" CULE_RUN="$TAP_DIR/run" TAP_ROOT TAP_O TAP_DIR
export CULE_TEST_ID="$tap_id" CULE_TEST_CASE="$tap_id.0"
unset CULE_BUS CULE_READY_FD CULE_CAP_FD LISTEN_FDS LISTEN_FDNAMES NOTIFY_SOCKET CULE_TRACE XDG_RUNTIME_DIR NO_COLOR
mkdir -m 700 "$CULE_RUN"
mkfifo -m 600 "$TAP_DIR/never"

# Kills every process that carries a mark in its environment, until none is left that does.
tap_kill_marked() {
    local round pids
    for round in 1 2 3 4 5; do
        # Without the mark themselves, or they would find one another.
        pids=$(CULE_TEST_ID='' CULE_TEST_CASE='' grep -lzsF -- "$1" /proc/[0-9]*/environ |
            CULE_TEST_ID='' CULE_TEST_CASE='' tr -dc '0-9\n')
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086 # one pid a word
        kill -KILL $pids 2>/dev/null
        [ "$round" = 1 ] || sleep 0.05
    done
}

tap_exit() {
    local rc=$?
    trap - EXIT
    tap_kill_marked "CULE_TEST_ID=$tap_id"
    cd /
    if [ -n "${TAP_KEEP:-}" ]; then
        echo "# kept $TAP_DIR"
    else
        rm -rf "$TAP_DIR"
    fi
    if [ -z "$tap_ended" ]; then
        echo "Bail out! the script ended early with status $rc"
        [ "$rc" != 0 ] || rc=1
    fi
    exit "$rc"
}
trap tap_exit EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# Seconds, scaled for slow builds.
tap_seconds() { echo "$(($1 * TAP_SCALE))"; }

# Ends the case whose shell's pid stands in $1 after $2 seconds. read waits without a child to clean up.
tap_watch() {
    local line
    # shellcheck disable=SC2034
    read -r -t "$2" line <>"$TAP_DIR/never"
    echo "timed out after $2 s" >"$1.late"
    tap_kill_marked "CULE_TEST_CASE=$CULE_TEST_CASE"
    kill -KILL "$(cat "$1")" 2>/dev/null
}

test_case() {
    local name=$1 body=$2 log rc watch why
    tap_n=$((tap_n + 1))
    tap_case=$tap_n
    log=$TAP_DIR/log.$tap_n
    mkdir "$TAP_DIR/$tap_n"
    export CULE_TEST_CASE="$tap_id.$tap_n."
    tap_watch "$TAP_DIR/pid.$tap_n" "$(tap_seconds "$TAP_TIMEOUT")" >/dev/null 2>&1 </dev/null &
    watch=$!
    (
        trap - EXIT
        echo "$BASHPID" >"$TAP_DIR/pid.$tap_n"
        cd "${TAP_CWD:-$TAP_DIR/$tap_n}" || exit 1
        set -e
        eval "$body"
    ) >"$log" 2>&1 </dev/null
    rc=$?
    kill -KILL "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    tap_kill_marked "CULE_TEST_CASE=$CULE_TEST_CASE"
    export CULE_TEST_CASE="$tap_id.0"
    tap_case=0
    if [ "$rc" = 0 ]; then
        echo "ok $tap_n - $name"
    elif [ "$rc" = 77 ] && [ -f "$TAP_DIR/skip.$tap_n" ]; then
        echo "ok $tap_n - $name # SKIP $(cat "$TAP_DIR/skip.$tap_n")"
    else
        tap_failed=$((tap_failed + 1))
        why="exit status $rc"
        [ ! -f "$TAP_DIR/pid.$tap_n.late" ] || why=$(cat "$TAP_DIR/pid.$tap_n.late")
        echo "not ok $tap_n - $name"
        echo "#   $why; ${0##*/}, case $tap_n"
        tail -n 50 "$log" | cut -c1-240 | sed 's/^/#   /'
    fi
    [ -n "${TAP_KEEP:-}" ] || rm -rf "${TAP_DIR:?}/$tap_n"
}

tap_done() {
    tap_ended=1
    echo "1..$tap_n"
    [ "$tap_failed" = 0 ]
    exit
}

skip_all() {
    tap_ended=1
    echo "1..0 # SKIP $*"
    exit 0
}

# --- in a case -------------------------------------------------------------------------------------------
tap_fail() {
    echo "$*" >&2
    return 1
}

skip() {
    echo "$*" >"$TAP_DIR/skip.$tap_case"
    exit 77
}

need() {
    local c
    for c in "$@"; do
        command -v "$c" >/dev/null || skip "$c is not installed"
    done
}

helper() { echo "$TAP_O/testlib/$1"; }

status() {
    local want=$1 got=0
    shift
    "$@" || got=$?
    [ "$got" = "$want" ] || tap_fail "exit status $got, not $want: $*"
}

fails() {
    # shellcheck disable=SC2310
    if "$@"; then tap_fail "should have failed: $*"; fi
}

same() {
    cmp -s "$1" "$2" && return 0
    [ -r "$2" ] || tap_fail "$2 cannot be read" || return 1
    if grep -qzP '[\x00-\x08\x0e-\x1f]' "$1" "$2" 2>/dev/null; then
        diff -u <(od -Ax -tx1z "$1") <(od -Ax -tx1z "$2") | head -n 40
    else
        diff -u "$1" "$2" | head -n 40
    fi
    tap_fail "$1 and $2 differ"
}

is() {
    printf '%s\n' "$2" >"$TAP_DIR/wanted"
    same "$TAP_DIR/wanted" "$1"
}

contains() {
    grep -qE -- "$2" "$1" && return 0
    head -c 4000 "$1"
    tap_fail "$1 has nothing like: $2"
}

lacks() {
    ! grep -nE -- "$2" "$1" || tap_fail "$1 has what it should not: $2"
}

wait_for() {
    local seconds=20 end
    if [ "$1" = -t ]; then
        seconds=$2
        shift 2
    fi
    end=$((${EPOCHREALTIME/./} + $(tap_seconds "$seconds") * 1000000))
    until (eval "$*") >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/./}" -lt "$end" ] || tap_fail "waited $seconds s in vain for: $*" || return 1
        sleep 0.02
    done
}

start() {
    local name=$1
    shift
    "$@" >"$TAP_DIR/$name.out" 2>"$TAP_DIR/$name.err" </dev/null &
    printf -v "${name}_pid" %s "$!"
}

start_ready() {
    local name=$1 pid
    shift
    : >"$TAP_DIR/$name.ready"
    CULE_READY_FD=9 "$@" >"$TAP_DIR/$name.out" 2>"$TAP_DIR/$name.err" </dev/null 9>>"$TAP_DIR/$name.ready" &
    pid=$!
    printf -v "${name}_pid" %s "$pid"
    wait_for "[ -s '$TAP_DIR/$name.ready' ] || gone $pid" || return 1
    if [ ! -s "$TAP_DIR/$name.ready" ]; then
        cat "$TAP_DIR/$name.err" >&2
        tap_fail "$name ended before it was ready"
    fi
}

gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

stop() {
    local var=$1_pid pid
    pid=${!var}
    kill -"${2:-TERM}" "$pid" 2>/dev/null || true
    wait_for gone "$pid" || return 1
    # shellcheck disable=SC2034 # for the caller
    stopped=0
    # shellcheck disable=SC2034
    wait "$pid" 2>/dev/null || stopped=$?
}

with_tty() { python3 "$TAP_ROOT/tests/lib/onatty.py" "$1"; }
