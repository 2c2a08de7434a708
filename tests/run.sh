#!/usr/bin/env bash
# Runs the tests, some at once, and ends with one line: N passed, N failed, N skipped.
#
#     tests/run.sh [--only KIND,…] [--list] [REGEX]      REGEX is held against KIND/NAME: make test T=ring
#
# Kinds: unit (cmocka programs), corpus (fuzz targets over their committed corpus), cli, cluster, vectors, lint
# (shell scripts that print TAP), examples (each is one test: its exit status, 77 is skipped).
# A program's name and counts are shown as it ends, its output only when something in it failed; all output is
# in $O/test-logs. A script with a line "# timeout: SECONDS" has that long (else TEST_TIMEOUT, 300), and one with
# "# alone: WHY" runs after the others, by itself.
set -u
cd "$(dirname "$0")/.." || exit 1
: "${O:=build}" "${JOBS:=$(nproc)}" "${TEST_TIMEOUT:=300}" "${TAP_SCALE:=1}"
[[ $O = /* ]] || O=$PWD/$O
export O JOBS TEST_TIMEOUT TAP_SCALE
export CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C
# cmocka's own signal handler would hide what the sanitizers find. (Not detect_stack_use_after_return: gcc 12 then
# misaligns variables of 64-byte alignment, its bug 110027.)
export ASAN_OPTIONS="${ASAN_OPTIONS:-handle_segv=2}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}"
logs=$O/test-logs

# Reads a program's TAP; prints passed, failed, skipped and why the whole is no good ("" when it is).
tally() {
    awk -v status="$1" -v kind="$2" '
        # cmocka calls a skipped test "not ok N # SKIP".
        /^(not )?ok .*# *[Ss][Kk][Ii][Pp]/ { skipped++; next }
        /^ok / { passed++; next }
        /^not ok / { failed++; next }
        /^1\.\.0 *# *SKIP/ { skipped++; plan = 1; planned++; next }
        /^1\.\.[0-9]+/ { plan = 1; split($0, p, /[. ]+/); planned += p[2]; next }
        /^Bail out!/ { bail = substr($0, 11) }
        END {
            why = ""
            ran = passed + failed + skipped
            if (kind == "examples" || kind == "corpus") {
                passed = failed = skipped = 0
                if (status == 0) passed = 1; else if (status == 77) skipped = 1; else failed = 1
                if (status == 124 || status == 137) why = "timed out"
            } else if (status == 124 || status == 137) { failed++; why = "timed out" }
            else if (bail != "") { failed++; why = bail }
            else if (!plan) { failed++; why = "no TAP plan, exit status " status }
            else if (ran != planned) { failed++; why = "ran " ran " of " planned ", exit status " status }
            else if (status != 0 && failed == 0) { failed++; why = "exit status " status }
            printf "%d %d %d %s\n", passed, failed, skipped, why
        }' "$3"
}

run_example() {
    local dir rc
    dir=$(mktemp -d "${TMPDIR:-/tmp}/cule-x.XXXXXX") || return 1
    mkdir -m 700 "$dir/run"
    (
        unset CULE_BUS XDG_RUNTIME_DIR
        TMPDIR=$dir CULE_RUN=$dir/run PATH=$O/bin:$PATH \
            timeout -k 5 "$limit" "$1"
    )
    rc=$?
    rm -rf "$dir"
    return "$rc"
}

# One program: KIND/NAME PATH.
run_one() {
    local name=$1 path=$2 kind=${1%%/*} limit=$TEST_TIMEOUT log status=0 passed failed skipped why begin own
    log=$logs/${name//\//.}.log
    begin=$EPOCHREALTIME
    own=$(sed -n 's/^# timeout: \([0-9]*\)$/\1/p' "$path" 2>/dev/null | head -n 1)
    limit=$((${own:-$limit} * TAP_SCALE))
    case $kind in
        examples) run_example "$path" >"$log" 2>&1 </dev/null || status=$? ;;
        corpus) timeout -k 5 "$limit" "$path" "tests/fuzz/corpus/${name#*/}" >"$log" 2>&1 </dev/null || status=$? ;;
        *) timeout -k 5 "$limit" "$path" >"$log" 2>&1 </dev/null || status=$? ;;
    esac
    read -r passed failed skipped why < <(tally "$status" "$kind" "$log")
    echo "$passed $failed $skipped" >"${log%.log}.count"
    exec 8>"$logs/lock"
    flock 8
    printf '%-4s %-32s %3d passed' "$([ "$failed" = 0 ] && echo ok || echo FAIL)" "$name" "$passed"
    [ "$failed" = 0 ] || printf ', %d failed' "$failed"
    [ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "  %.1f s\n", b - a }'
    grep -hE '^((not )?ok .*|1\.\.0 *)# *SKIP' "$log" | sed -E 's/^((not )?ok [0-9]+( -)? )?/     skipped: /'
    if [ "$failed" != 0 ]; then
        [ -z "$why" ] || echo "     $name: $why"
        grep -vE '^ok ' "$log" | tail -n 150 | cut -c1-500 | sed 's/^/     | /'
    fi
}

if [ "${1:-}" = --one ]; then
    run_one "${2%% *}" "${2#* }"
    exit 0
fi

only='' list='' filter=''
while [ $# -gt 0 ]; do
    case $1 in
        --only) only=,$2, && shift ;;
        --list) list=1 ;;
        -*)
            echo "usage: tests/run.sh [--only KIND,…] [--list] [REGEX]" >&2
            exit 2
            ;;
        *) filter=$1 ;;
    esac
    shift
done

tests=() alone=()
add() {
    local name=$1 path=$2
    [ -z "$only" ] || [[ $only = *,${name%%/*},* ]] || return 0
    [ -z "$filter" ] || [[ $name =~ $filter ]] || return 0
    if [[ $path = *.sh ]] && grep -q '^# alone: ' "$path"; then
        alone+=("$name $path")
    else
        tests+=("$name $path")
    fi
}
# The sources say what there is: a program that was not built is a failure, not a smaller number.
for kind in cli cluster vectors lint; do
    for f in tests/"$kind"/*.sh; do
        [ -e "$f" ] && add "$kind/$(basename "$f" .sh)" "$f"
    done
done
for f in tests/unit/*.c; do
    [ -e "$f" ] && add "unit/$(basename "$f" .c)" "$O/unit/$(basename "$f" .c)"
done
for f in tests/fuzz/*.c; do
    [ -e "$f" ] && add "corpus/$(basename "$f" .c)" "$O/corpus/$(basename "$f" .c)"
done
for f in examples/*.sh; do
    [ -x "$f" ] && add "examples/$(basename "$f" .sh)" "$f"
done

if [ -n "$list" ]; then
    printf '%s\n' "${tests[@]+"${tests[@]}"}" "${alone[@]+"${alone[@]}"}" | sed '/^$/d; s/ .*//'
    exit 0
fi

rm -rf "$logs"
mkdir -p "$logs"
[ ${#tests[@]} = 0 ] || printf '%s\0' "${tests[@]}" | xargs -0 -P "$JOBS" -n 1 tests/run.sh --one
[ ${#alone[@]} = 0 ] || printf '%s\0' "${alone[@]}" | xargs -0 -P 1 -n 1 tests/run.sh --one

want=$((${#tests[@]} + ${#alone[@]}))
cat "$logs"/*.count 2>/dev/null | awk -v want="$want" '
    { passed += $1; failed += $2; skipped += $3 }
    END {
        if (NR < want) { failed += want - NR; print "     " want - NR " programs left no result" }
        if (want == 0) { failed++; print "     no test has that name" }
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0
    }'
