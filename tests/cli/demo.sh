#!/usr/bin/env bash
# make demo's script: what it claims holds, with Python and without; it notices when something does not hold; and it
# leaves nothing behind, however it ends.
# timeout: 300
. "${0%/*}/../lib/tap.sh"
TAP_TIMEOUT=120
# The broker's memory is one of the claims: a sanitizer must give back what was freed.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:quarantine_size_mb=1:thread_local_quarantine_size_kb=64"

# Runs it with a TMPDIR of its own, so that what it leaves can be seen.
demo() {
    mkdir -p tmp
    code=0
    TMPDIR=$PWD/tmp "$TAP_ROOT/examples/demo.sh" >out 2>err || code=$?
    cat out err
}
nothing_left() {
    [ -z "$(ls tmp)" ]
    fails grep -lzsF "CULE_RUN=$PWD/tmp/" /proc/[0-9]*/environ
}
# A directory with all commands that are in PATH, but for those named.
path_without() {
    local d f name
    mkdir bin
    IFS=: read -ra dirs <<<"$PATH"
    for d in "${dirs[@]}"; do
        for f in "$d"/*; do
            [ -e "$f" ] || continue
            name=${f##*/}
            [[ " $* " = *" ${name%%[0-9.]*} "* ]] || [ -e "bin/$name" ] || ln -s "$f" "bin/$name"
        done
    done
}
holds() {
    [ "$code" = 0 ]
    lacks out '✗'
    contains out "$nclaims"
    contains out '✓ the caller was told after [0-9]+ ms'
    contains out '✓ the bus gave the job again, marked as redelivered'
    contains out '✓ lines, words and bytes of every type are equal'
    contains out '✓ both pools had their share'
    contains out '✓ the slow one was not waited for: [0-9]+ published = [0-9]+ received \+ [1-9][0-9]* dropped'
    contains out "✓ the broker's memory grew by -?[0-9]+ kB"
    contains out '✓ explain says why'
    contains out '✓ a fresh pool gives the recorded answers: replay --compare has status 0'
    contains out '✓ a pool that counts a word too many does not: status 1'
    contains out '✓ the recording of the bus, played to another bus without any worker, gives the same sums'
    [ ! -s err ]
    nothing_left
}
nclaims='^All 12 claims held, in [0-9.]+ s\.$'

with_python() {
    need python3
    demo
    holds
    contains out '2 in python'
}
without_python() {
    need perl
    path_without python
    PATH=$PWD/bin demo
    holds
    contains out '2 in perl'
}
# A python3 that runs a worker which counts a line too many.
wrong_worker() {
    need python3
    mkdir bin
    sed 's/data.count(10)/1 + data.count(10)/' "$TAP_ROOT/examples/demo/worker.py" >wrong.py
    printf '#!/bin/sh\nexec "%s" -u "%s"\n' "$(command -v python3)" "$PWD/wrong.py" >bin/python3
    chmod +x bin/python3
    PATH=$PWD/bin:$PATH demo
    [ "$code" = 1 ]
    contains out '✗ lines, words and bytes of every type are equal'
    contains out '^1 of 12 claims did not hold'
    nothing_left
}
# Without a bus there is nothing to show.
no_program() {
    mkdir bin
    printf '#!/bin/sh\necho "no bus today" >&2\nexit 1\n' >bin/cule-ipc
    chmod +x bin/cule-ipc
    PATH=$PWD/bin:$PATH demo
    [ "$code" = 1 ]
    contains out '✗ bus does not start'
    contains out 'no bus today'
    nothing_left
}
interrupted() {
    mkdir tmp
    TMPDIR=$PWD/tmp start cut "$TAP_ROOT/examples/demo.sh"
    wait_for grep -q 'jobs published' "$TAP_DIR/cut.out"
    stop cut TERM
    [ "$stopped" = 143 ]
    nothing_left
}

test_case 'all that the demo claims holds' with_python
test_case 'and where there is no Python' without_python
test_case 'a worker that counts wrongly is found out' wrong_worker
test_case 'it ends in an error where the programs do not work' no_program
test_case 'interrupted, it ends all that it started and removes its files' interrupted
tap_done
