#!/usr/bin/env bash
# Runs the measures and prints one line for each: name, our figure, the peer and its figure, the ratio, the target.
#
#     tests/bench/run.sh [--json] [NAME…]     NAME: a program in tests/bench, as a regular expression
#
# Programs are $O/bench/NAME (make bench builds them). Each prints JSON lines with the keys name, value, unit, peer,
# peer_value, ratio, target on stdout; ratio says how many times better than the peer we are, above 1 is better whatever
# the unit; target is in the same terms. A peer that is not there has peer_value and ratio null, and is reported as
# "not installed". The floor of the machine (floor) is measured first. With --json the objects are passed on as they are.
# Exit status: 1 where a target was missed, 4 where a program failed or was not built.
set -u
cd "$(dirname "$0")/../.." || exit 4
: "${O:=build}" "${BENCH_TIMEOUT:=600}"
[[ $O = /* ]] || O=$PWD/$O
export O PATH="$O/bin:$PATH" LC_ALL=C
json='' names=()
for a in "$@"; do
    case $a in
        --json) json=1 ;;
        -*)
            echo "usage: tests/bench/run.sh [--json] [NAME…]" >&2
            exit 2
            ;;
        *) names+=("$a") ;;
    esac
done
command -v jq >/dev/null || {
    echo "bench: jq is missing; make deps-bench installs it" >&2
    exit 4
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/cule-b.XXXXXX") || exit 4
trap 'rm -rf "$dir"' EXIT
mkdir -m 700 "$dir/run"
export CULE_RUN=$dir/run
unset CULE_BUS

# The floor first, then the others by name.
programs=()
for f in tests/bench/floor.c tests/bench/*.c; do
    p=$(basename "$f" .c)
    [ -e "$f" ] && [[ " ${programs[*]-} " != *" $p "* ]] && programs+=("$p")
done

chosen() {
    local n
    [ ${#names[@]} = 0 ] && return 0
    for n in "${names[@]}"; do
        [[ $1 =~ $n ]] && return 0
    done
    return 1
}

# A table row; an absent peer is said to be absent.
row() {
    jq -r 'def n: if . == null then "-" elif type == "number" then
                if . == 0 then "0" elif fabs >= 1000 then (round | tostring) else
                    (pow(10; 3 - (fabs | log10 | floor)) as $k | (. * $k | round) / $k | tostring) end
                else tostring end;
        [ .name, (.value | n), (.unit // "-"), (.peer // "-"),
          (if .peer == null then "-" elif .peer_value == null then "not installed" else (.peer_value | n) end),
          (if .ratio == null then "-" else "\(.ratio | n) x" end),
          (if .target == null then "-" else "\(.target | n) x" end),
          (if .target == null then "-" elif .ratio == null then "?" elif .ratio >= .target then "ok" else "miss" end)
        ] | @tsv' | awk -F '\t' '{ printf "%-36s %12s %-10s %-22s %14s %10s %10s  %s\n", $1, $2, $3, $4, $5, $6, $7, $8 }'
}

if [ -z "$json" ]; then
    echo "$(uname -sr), $(nproc) cores, $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
    printf '%-36s %12s %-10s %-22s %14s %10s %10s  %s\n' measure ours unit peer "peer's" ratio target verdict
fi
failed=0
: >"$dir/all"
for p in "${programs[@]}"; do
    chosen "$p" || continue
    if [ ! -x "$O/bench/$p" ]; then
        header=$(sed -n 's/^#include <\(zmq\.h\|nng\/nng\.h\|nats\/nats\.h\)>.*/\1/p' "tests/bench/$p.c" | head -n 1)
        if [ -n "$header" ] && [ ! -e "/usr/include/$header" ]; then
            absent=$(jq -nc --arg n "$p" --arg p "${header%%[./]*}" \
                '{name: $n, value: null, unit: null, peer: $p, peer_value: null, ratio: null, target: null}')
            echo "$absent" >>"$dir/all"
            if [ -n "$json" ]; then echo "$absent"; else row <<<"$absent"; fi
        else
            echo "bench: $p is not built; make bench builds it" >&2
            failed=4
        fi
        continue
    fi
    # Lines are shown as they come: a long run should not look like a hang.
    timeout -k 5 "$BENCH_TIMEOUT" "$O/bench/$p" </dev/null 2>"$dir/err" | while IFS= read -r line; do
        if ! jq -e 'has("name") and has("value") and has("unit") and has("peer") and has("peer_value") and
            has("ratio") and has("target")' <<<"$line" >/dev/null 2>&1; then
            echo "bench: $p printed what is no measure: $line" >&2
            : >"$dir/bad"
            continue
        fi
        echo "$line" >>"$dir/all"
        if [ -n "$json" ]; then echo "$line"; else row <<<"$line"; fi
    done
    status=${PIPESTATUS[0]}
    if [ "$status" != 0 ]; then
        echo "bench: $p failed with status $status" >&2
        cat "$dir/err" >&2
        failed=4
    fi
done
[ ! -e "$dir/bad" ] || failed=4
[ -s "$dir/all" ] || {
    echo "bench: nothing was measured" >&2
    exit 4
}
if [ "$failed" = 0 ] && jq -se 'any(.[]; .target != null and .ratio != null and .ratio < .target)' "$dir/all" >/dev/null; then
    failed=1
fi
exit "$failed"
