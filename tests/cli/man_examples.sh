#!/usr/bin/env bash
# Runs the EXAMPLES of the manual pages of sections 1, 5 and 7.
#
# A literal block (.Bd -literal, or .Dl) with lines that begin with "$ " is run as one script under bash -e in a
# directory that the blocks of one page share, with the programs in PATH and a CULE_RUN of its own; each block has a
# deadline and must succeed. Its other lines are what it must print on stdout; a line "..." stands for any lines; a
# block that shows no output may print what it likes. What a block leaves running is killed. A block without "$ "
# lines is a listing and not run. tests/lib/manblocks.py takes the blocks out.
# timeout: 300
. "${0%/*}/../lib/tap.sh"
cd "$TAP_ROOT" || exit 1

run_block() {
    local block=$1
    cd "$2"
    bash -e "$block.sh" >"$block.out"
    [ ! -s "$block.expect" ] || python3 "$TAP_ROOT/tests/lib/manblocks.py" --match "$block.expect" "$block.out" ||
        same "$block.expect" "$block.out"
}

n=0
for page in man/man[157]/*.[157]; do
    [ -e "$page" ] || continue
    dir=$TAP_DIR/${page##*/}
    mkdir -p "$dir.blocks" "$dir"
    for b in $(python3 tests/lib/manblocks.py "$page" "$dir.blocks"); do
        n=$((n + 1))
        test_case "${page##*/} $b: $(head -n 1 "$dir.blocks/$b.sh" | cut -c1-70 | tr '#' ' ')" \
            "run_block $dir.blocks/$b $dir"
    done
done
[ "$n" -gt 0 ] || skip_all 'no manual page has examples yet'
tap_done
