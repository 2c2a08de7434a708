#!/usr/bin/env bash
# Runs a program once per allocation, with that allocation failing, until it runs through without one having failed.
#
#     tests/lib/torture.sh [-n RUNS] [-t SECONDS] PROGRAM [ARGS…]
#
# An orderly error exit is fine; a signal, a sanitizer's report or a run beyond SECONDS (10) is not. Ends after
# RUNS (3000) allocations at most. Exit status 0 or 1; a line says how many allocations were failed.
# Standard input is a file's: TORTURE_IN, else /dev/null.
set -u
runs=3000 seconds=10
while getopts n:t: o; do
    case $o in
        n) runs=$OPTARG ;;
        t) seconds=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
: "${O:=build}"
[[ $O = /* ]] || O=$PWD/$O
so=$O/testlib/failalloc.so
[ -e "$so" ] || {
    echo "torture: $so is missing; make testlib" >&2
    exit 2
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/cule-f.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
# The allocator of cmocka, of the dynamic linker and of GnuTLS's constructors is not ours to test.
export FAILALLOC_SKIP="${FAILALLOC_SKIP:-libcmocka:ld-linux:libgnutls:libp11}" FAILALLOC_HIT="$dir/hit"
for ((n = 1; n <= runs; n++)); do
    rm -f "$dir/hit"
    status=0
    # env sets LD_PRELOAD last, so that timeout itself is not tortured.
    timeout -k 1 "$seconds" env FAILALLOC_AT="$n" LD_PRELOAD="$so" "$@" \
        >"$dir/out" 2>&1 <"${TORTURE_IN:-/dev/null}" || status=$?
    # cmocka catches signals and reports them as a failed test.
    if [ "$status" -ge 124 ] || grep -qE 'exception: |Sanitizer|runtime error:' "$dir/out"; then
        [ "$status" = 124 ] && what=hang || what=crash
        echo "torture: $what (status $status) with allocation $n failing: $*"
        echo "torture: FAILALLOC_AT=$n LD_PRELOAD=$so shows it again"
        tail -n 20 "$dir/out"
        exit 1
    fi
    if [ ! -e "$dir/hit" ]; then
        echo "torture: $((n - 1)) allocations failed in turn: $*"
        exit 0
    fi
done
echo "torture: the first $runs allocations failed in turn: $*"
