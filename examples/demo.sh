#!/usr/bin/env bash
# The main job on real input (make demo): a graph of processes, composed over the bus by this script, works through
# this repository's files and history and the package manager's log. Each claim is checked; the exit status tells.
#
#     git ls-files ─┐              ┌─ work ── record ── serve: 2 workers in shell ───┐
#     git log ──────┴─ pub ─ bus ──┤  a queue group                                  ├─ bus ── sub | awk: the sums
#                                  └─ work ──────────── serve: 2 workers in Python ──┘
#     dpkg.log ─────── pub ─ bus ──┬─ sub | awk       keeps up and sees every message
#                                  └─ sub | sleeper   does not: 64 messages wait, the rest is dropped and counted
#
# KEEP=1 keeps the directory with recordings and logs. Workers, in examples/demo, count lines, words (runs of letters)
# and bytes of a file or of a commit's message; words are counted in C's locale so that every tool means the same.
# timeout: 180
set -u
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
begin=${EPOCHREALTIME/./}
run=$(mktemp -d "${TMPDIR:-/tmp}/cule-demo.XXXXXX") || exit 1
export CULE_RUN=$run NOTES=$run/notes
unset CULE_BUS CULE_READY_FD
mkdir "$NOTES"
claims=0 failed=0
groups=() # process groups of what runs behind

bold='' dim='' good='' bad='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' dim=$'\e[2m' good=$'\e[32m' bad=$'\e[31m' plain=$'\e[0m'
fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
show() { sed "s/^/    $dim/; s/\$/$plain/"; } # what a program printed
show_table() {                                # the same for columns with tabs between them
    awk -F '\t' '
        { line[NR] = $0; for (i = 1; i <= NF; i++) if (length($i) > width[NF, i]) width[NF, i] = length($i) }
        END {
            for (n = 1; n <= NR; n++) {
                out = ""
                k = split(line[n], f, "\t")
                for (i = 1; i < k; i++) out = out sprintf("%-" width[k, i] "s  ", f[i])
                print out f[k]
            }
        }' | show
}
check() { # check TEXT COMMAND…: the claim holds if the command succeeds
    local text=$1
    shift
    claims=$((claims + 1))
    if "$@"; then
        printf '  %s✓%s %s\n' "$good" "$plain" "$text"
    else
        printf '  %s✗ %s%s\n' "$bad" "$text" "$plain"
        failed=$((failed + 1))
    fi
}
equal() { # two files; how they differ is shown
    cmp -s "$1" "$2" || { diff "$1" "$2" | head -n 10 | show && false; }
}
give_up() {
    printf '  %s✗ %s%s\n' "$bad" "$*" "$plain"
    tail -n 5 "$run"/*.err 2>/dev/null | show
    exit 1
}
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# --- processes: each in a group of its own, ready before we go on, ended by a deadline ---------------------------------
# start NAME COMMAND…: runs it behind and waits until it says that it is ready; its process and group in ${pid[NAME]}.
declare -A pid
start() {
    local name=$1
    shift
    rm -f "$run/ready"
    mkfifo "$run/ready"
    set -m
    CULE_READY_FD=3 "$@" >"$run/$name.out" 2>"$run/$name.err" </dev/null 3>"$run/ready" &
    set +m
    pid[$name]=$!
    groups+=("$!")
    disown
    read -r -t 20 <"$run/ready" || give_up "$name does not start"
}
ended() { ! kill -0 -- "-$1" 2>/dev/null; } # a process group
within() {                                  # within SECONDS COMMAND…: polls; fails when it is late
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        [ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
        sleep 0.02
    done
}
finish() { # finish PID: asks a group to end and waits for it
    kill -TERM -- "-$1" 2>/dev/null
    within 10 ended "$1" || kill -KILL -- "-$1" 2>/dev/null
}
clean_up() {
    local rc=$? g
    trap - EXIT INT TERM
    for g in "${groups[@]}"; do kill -TERM -- "-$g" 2>/dev/null; done
    for g in "${groups[@]}"; do
        within 5 ended "$g" || kill -KILL -- "-$g" 2>/dev/null
    done
    if [ -n "${KEEP:-}" ]; then echo "kept: $run"; else rm -rf "$run"; fi
    exit "$rc"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- the material ------------------------------------------------------------------------------------------------------
# At most 600 files, copied first because somebody may be editing them, and 100 commits. Names without quotes, backslashes
# and control characters.
here=$PWD
tree=$run/tree
mkdir "$tree"
{
    git ls-files 2>/dev/null | grep . || find . -name .git -prune -o -path ./build -prune -o -type f -print | sed 's|^\./||' | sort
} | grep -v '["\\[:cntrl:]]' | while IFS= read -r f; do
    if [ -f "$f" ] && [ ! -L "$f" ]; then echo "$f"; fi
done | sed -n 1,600p | tr '\n' '\0' | xargs -0 -r cp --parents -t "$tree" --
git log -n 100 --format='commit %H' >"$run/commits" 2>/dev/null && GIT_DIR=$(git rev-parse --absolute-git-dir) && export GIT_DIR
cd "$tree" || exit 1
find . -type f | sed 's|^\./|file |' | sort >"$run/jobs"
nfiles=$(wc -l <"$run/jobs")
[ "$nfiles" -gt 0 ] || give_up 'no files here'
cat "$run/commits" >>"$run/jobs"
njobs=$(wc -l <"$run/jobs")
# One file more: a named pipe that nobody writes to, so that the worker which counts it can be killed in the act.
# When it is dead a real file has taken the pipe's place.
stuck=$run/stuck.py
mkfifo "$stuck"

first_cmd="exec sh '$here/examples/demo/worker.sh'"
if command -v python3 >/dev/null; then
    second=python
    second_cmd="exec python3 -u '$here/examples/demo/worker.py'"
elif command -v perl >/dev/null; then
    second=perl
    second_cmd="exec perl '$here/examples/demo/worker.pl'"
else
    second=shell_too
    second_cmd=$first_cmd
fi

printf '%sCule: a graph of processes over a bus, at work on real input%s\n\n' "$bold" "$plain"
sed -n '/^#     git ls/,/^#     .*sleeper/s/^#    //p' "$here/examples/demo.sh" | sed 's/^/ /'
# --- 1 -----------------------------------------------------------------------------------------------------------------
step '1. A bus, two pools of workers, a queue group'
start bus cule-ipc bus --topic 'tree/#:overflow=block' --topic 'packages:overflow=block'
start shell cule-ipc serve --listen "unix:$run/shell" --lines "$first_cmd" --workers 2
start "$second" cule-ipc serve --listen "unix:$run/$second" --lines "$second_cmd" --workers 2
start tape cule-ipc record --listen "unix:$run/shell.tape" --connect "unix:$run/shell" --to "$run/shell.rec"
start bustape cule-ipc record --topic 'tree/#' --to "$run/bus.rec"
# Sums by type of file, and who counted how many.
kinds='function kind(what, name) {
    if (what == "commit") return "commit"
    sub(/.*\//, "", name)
    if (name ~ /\.[1-9]$/) return "man"
    if (name !~ /.\.(c|h|sh|py|md|tsv|def)$/) return "other"
    sub(/.*\./, "", name)
    return name
}
function add(what, lines, words, bytes, name, k) {
    k = kind(what, name); n[k]++; l[k] += lines; w[k] += words; b[k] += bytes
}
function total(k) {
    for (k in n) printf "%-8s %7d %9d %9d %11d\n", k, n[k], l[k], w[k], b[k]
}'
sums() { # NAME N: of N answers on the bus, each once
    cule-ipc sub 'tree/counts/+' --topics --count "$2" | awk -F '\t' -v shares="$run/$1.shares" "$kinds"'
        {
            split($2, f, " ")
            name = $2
            sub(/^[a-z]+ [0-9]+ [0-9]+ [0-9]+ /, "", name)
            if (seen[f[1], name]++) next
            add(f[1], f[2], f[3], f[4], name)
            sub(/.*\//, "", $1)
            by[$1]++
        }
        END { total(); for (k in by) print by[k], k >shares }' | sort >"$run/$1.sums"
}
start aggregator sums live $((njobs + 1))
member() { # NAME ENDPOINT: a member of the queue group that asks this pool
    NAME=$1 POOL=$2 exec cule-ipc work tree/jobs --group counters --concurrency 2 -- sh "$here/examples/demo/job.sh"
}
start second_member member "$second" "unix:$run/$second"
say "$nfiles files, $((njobs - nfiles)) commits; 2 workers in shell, 2 in $second"
[ "$second" = python ] || say "(no python3 is installed here: the second pool is $second)"
bus_rss=$(awk '/^VmRSS/ { print $2 }' "/proc/${pid[bus]}/status")
say "the broker uses $bus_rss kB"

# --- 2 -----------------------------------------------------------------------------------------------------------------
step '2. The work goes on while a worker is killed in the midst of a job'
parent() { # its parent's pid; comm, in parentheses, may hold anything
    local stat
    read -r stat <"/proc/$1/stat" && stat=${stat##*) } && stat=${stat#* } && echo "${stat%% *}"
} 2>/dev/null
at_the_pipe() { # finds the worker of the second pool that has the pipe open, itself or by a child: $worker
    local fd p up
    for fd in /proc/[0-9]*/fd/*; do
        [ "$fd" -ef "$stuck" ] || continue
        p=${fd#/proc/}
        p=${p%%/*}
        while up=$(parent "$p") && [ "$up" -gt 1 ]; do
            if [ "$up" = "${pid[$second]}" ]; then
                worker=$p
                return 0
            fi
            p=$up
        done
    done
    return 1
}
worker=
exec 7<>"$stuck" # so that who reads it waits
cule-ipc pub tree/jobs "file $stuck" || give_up 'the bus does not take a job'
within 20 at_the_pipe || give_up 'no worker takes the job'
start shell_member member shell "unix:$run/shell.tape"
timeout 60 cule-ipc pub tree/jobs --format lines <"$run/jobs" || give_up 'the bus does not take the jobs'
say "$((njobs + 1)) jobs published; a look at the bus while they are done:"
timeout 10 cule-ipc hz 'tree/counts/+' --interval 500ms --count 1 2>&1 | show
timeout 10 cule-ipc top --count 1 2>&1 | show_table

cp "$here/examples/demo/worker.py" "$stuck.new"
mv -f "$stuck.new" "$stuck"
killed=$(now_ms)
kill -KILL "$worker"
exec 7>&-
within 10 test -s "$NOTES/told"
told=$(sed -n '1s/ .*//p' "$NOTES/told" 2>/dev/null)
say "killed worker $worker of the $second pool with SIGKILL; its caller heard:"
sed -n '1s/^[0-9]* [^:]*: //p' "$NOTES/told" 2>/dev/null | show
late=$((${told:-$killed + 9999} - killed))
check "the caller was told after $late ms (at most 1000)" [ "$late" -le 1000 ]
within 60 ended "${pid[aggregator]}" || give_up 'not all answers came'
check "the bus gave the job again, marked as redelivered, to a member with the $(sed -n '1s/ .*//p' "$NOTES/redelivered" 2>/dev/null) pool" \
    grep -q " file $stuck\$" "$NOTES/redelivered"

# --- 3 -----------------------------------------------------------------------------------------------------------------
step '3. The sums, compared with those of awk and wc over the same data'
reference() {
    {
        sed -n 's|^file |./|p' "$run/jobs" | tr '\n' '\0' | xargs -0 wc -lc | sed '/^ *[0-9]* *[0-9]* total$/d; s/^/size /'
        sed -n 's|^file |./|p' "$run/jobs" | tr '\n' '\0' |
            xargs -0 awk '{ w[FILENAME] += gsub(/[A-Za-z]+/, "") } END { for (f in w) print "words", w[f], f }'
        wc -lc "$stuck" | sed 's/^/size /'
        awk '{ w += gsub(/[A-Za-z]+/, "") } END { print "words", w, FILENAME }' "$stuck"
    } | awk "$kinds"'
        {
            name = $0
            sub(/^size +[0-9]+ +[0-9]+ |^words [0-9]+ /, "", name)
            if ($1 == "size") add("file", $2, 0, $3, name); else w[kind("file", name)] += $2
        }
        END { total() }'
    if [ "$njobs" -gt "$nfiles" ]; then
        git log -n 100 --format=%B "$(sed -n '1s/commit //p' "$run/commits")" >"$run/messages"
        printf '%-8s %7d %9d %9d %11d\n' commit $((njobs - nfiles)) "$(wc -l <"$run/messages")" \
            "$(awk '{ w += gsub(/[A-Za-z]+/, "") } END { print w }' "$run/messages")" "$(wc -c <"$run/messages")"
    fi
}
reference | sort >"$run/reference.sums"
{ printf '%-8s %7s %9s %9s %11s\n' type number lines words bytes && cat "$run/live.sums"; } | show
check 'lines, words and bytes of every type are equal' equal "$run/live.sums" "$run/reference.sums"
say "counted by: $(tr '\n' ' ' <"$run/live.shares")"
check 'both pools had their share' [ "$(wc -l <"$run/live.shares")" = 2 ]

# --- 4 -----------------------------------------------------------------------------------------------------------------
step '4. A consumer that is too slow, and a broker that stays bounded'
source=/var/log/dpkg.log
log=$run/packages # a copy: it may grow meanwhile
if ! tr -cd '[:print:]\n' <"$source" 2>/dev/null | grep . >"$log"; then
    source="the files' own lines (there is no dpkg.log)"
    sed -n 's|^file ||p' "$run/jobs" | tr '\n' '\0' | xargs -0 cat | tr -cd '[:print:]\n' | grep . >"$log"
fi
rounds=$((32000000 / $(wc -c <"$log") + 1)) # 32 MB in all
published=$(($(grep -c '' "$log") * rounds))
actions='{ n[$3]++ } END { for (a in n) print n[a] * rounds, a }'
fast() { cule-ipc sub packages --count "$published" | awk -v rounds=1 "$actions" | sort -rn >"$run/fast.actions"; }
slow() { # takes a line every 10 ms until the flood is over, then what is left
    local line n=0
    cule-ipc sub packages --queue 64 --overflow drop-oldest | {
        while IFS= read -r line && [ "$line" != 'end of log' ]; do
            n=$((n + 1))
            [ -e "$run/over" ] || sleep 0.01
        done
        echo "$n" >"$run/slow.got"
    }
}
start fast fast
start slow slow
from=$(now_ms)
for ((i = 0; i < rounds; i++)); do cat "$log"; done | timeout 60 cule-ipc pub packages --format lines || give_up 'the flood was not taken'
within 30 ended "${pid[fast]}" || give_up 'the fast consumer did not get all'
took=$(($(now_ms) - from))
say "$source, $rounds times over: $published messages in $took ms"
bus_peak=$(awk '/^VmHWM/ { print $2 }' "/proc/${pid[bus]}/status")
cule-ipc list subscriptions packages | show_table
cule-ipc pub packages 'end of log'
: >"$run/over"
within 30 test -s "$run/slow.got" || give_up 'the slow consumer does not come to the end'
got=$(cat "$run/slow.got")
dropped=$(cule-ipc list topics packages --json | sed -n 's/.*"topic":"packages"[^}]*"dropped":\([0-9]*\).*/\1/p')
finish "${pid[slow]}"
awk -v rounds="$rounds" "$actions" "$log" | sort -rn >"$run/reference.actions"
head -n 5 "$run/fast.actions" | show
check 'the fast consumer saw every message: its sums by action are those of awk' \
    equal "$run/fast.actions" "$run/reference.actions"
check "the slow one was not waited for: $published published = $got received + ${dropped:-?} dropped" \
    [ "$published" = $((got + ${dropped:-0})) ]
check 'something was dropped' [ "${dropped:-0}" -gt 0 ]
check "the broker's memory grew by $((bus_peak - bus_rss)) kB at most, of 32,000 kB that passed" \
    [ $((bus_peak - bus_rss)) -lt 10000 ]
cule-ipc explain packages >"$run/why" 2>&1
show <"$run/why"
check 'explain says why' grep -q "dropped.*'packages'.*queue" "$run/why"

# --- 5 -----------------------------------------------------------------------------------------------------------------
step '5. What was recorded is played again, and tells the same story'
in_bus_recording() { # answers on the bus that are in the recording
    cule-ipc decode --filter 'topic=tree/counts/+,kind=request' "$run/bus.rec" 2>/dev/null | grep -c payload
}
all_recorded() { [ "$(in_bus_recording)" = $((njobs + 1)) ]; }
within 10 all_recorded || give_up "the recording of the bus has $(in_bus_recording) answers"
finish "${pid[bustape]}"
finish "${pid[tape]}"
say "recorded: the link of the shell pool ($(($(wc -c <"$run/shell.rec") / 1024)) KiB), the bus ($(($(wc -c <"$run/bus.rec") / 1024)) KiB)"

finish "${pid[shell]}"
start again cule-ipc serve --listen "unix:$run/again" --lines "$first_cmd" --workers 2
timeout 60 cule-ipc replay --compare --as-fast-as-possible "$run/shell.rec" "unix:$run/again" >"$run/story" 2>&1
status=$?
check "a fresh pool gives the recorded answers: replay --compare has status $status" [ "$status" = 0 ]
finish "${pid[again]}"
show <"$run/story"

sed 's/ \$1 \$3 \$2 / $1 $(($3 + 1)) $2 /' "$here/examples/demo/worker.sh" >"$run/wrong.sh" # counts a word too many
start wrong cule-ipc serve --listen "unix:$run/wrong" --lines "exec sh '$run/wrong.sh'" --workers 2
timeout 60 cule-ipc replay --compare --as-fast-as-possible "$run/shell.rec" "unix:$run/wrong" >"$run/story" 2>&1
status=$?
check "a pool that counts a word too many does not: status $status" [ "$status" = 1 ]
finish "${pid[wrong]}"
{ head -n 3 "$run/story" && tail -n 1 "$run/story"; } | show

export CULE_BUS=unix:$run/bus2
start bus2 cule-ipc bus --topic 'tree/#:overflow=block'
start aggregator_again sums replayed $((njobs + 1))
timeout 60 cule-ipc replay --as-fast-as-possible "$run/bus.rec" "$CULE_BUS" >"$run/story" 2>&1 || show <"$run/story"
within 20 ended "${pid[aggregator_again]}" || say 'not all answers came again'
check 'the recording of the bus, played to another bus without any worker, gives the same sums' \
    equal "$run/live.sums" "$run/replayed.sums"

took=$(((${EPOCHREALTIME/./} - begin) / 100000))
printf '\n'
if [ "$failed" = 0 ]; then
    printf '%sAll %d claims held%s, in %d.%d s.\n' "$bold$good" "$claims" "$plain" $((took / 10)) $((took % 10))
else
    printf '%s%d of %d claims did not hold%s (%d.%d s).\n' "$bold$bad" "$failed" "$claims" "$plain" $((took / 10)) $((took % 10))
    exit 1
fi
