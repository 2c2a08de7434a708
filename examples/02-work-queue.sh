#!/usr/bin/env bash
# A queue of jobs: two workers of one group share them, a job whose command fails comes again, and one that never
# succeeds ends in the dead-letter topic, where somebody can look at it.
set -eu
PATH=$PATH:$(cd "$(dirname "$0")" && pwd)/../build/bin
CULE_RUN=$(mktemp -d)
export CULE_RUN
unset CULE_BUS
trap 'kill $(jobs -p | tac) 2>/dev/null || true; wait; rm -rf "$CULE_RUN"' EXIT
ready() { # starts a program and waits until it says that it is
    mkfifo "$CULE_RUN/ready"
    CULE_READY_FD=3 "$@" 3>"$CULE_RUN/ready" &
    read -r <"$CULE_RUN/ready" && rm "$CULE_RUN/ready"
}

ready cule-ipc bus
touch "$CULE_RUN/done"
# The job "shaky" fails the first time, "broken" always.
job='read -r name
    [ "$name" != broken ] || exit 1
    [ "$name" != shaky ] || [ "$CULE_REDELIVERED" = 1 ] || exit 1
    echo "$name" >>"$CULE_RUN/done"'
ready cule-ipc work jobs --group builders --max-deliver 3 -- sh -c "$job" 2>>"$CULE_RUN/log"
ready cule-ipc work jobs --group builders --max-deliver 3 -- sh -c "$job" 2>>"$CULE_RUN/log"

printf '%s\n' apple shaky pear broken plum cherry | cule-ipc pub jobs --format lines --ack

# Dead letters are kept for whoever asks, also afterwards: wait for the one that we know will come.
echo "given up: $(cule-ipc sub '$bus/dead/#' --last 1 --count 1 --timeout 10s)"
timeout 20 sh -c 'until [ "$(wc -l <"$CULE_RUN/done")" = 5 ]; do sleep 0.05; done'
echo "done: $(sort "$CULE_RUN/done" | paste -sd " ")"
echo "attempts that failed: $(grep -c 'exit status 1' "$CULE_RUN/log")"
cule-ipc explain jobs | sed -n '/gave up/{s/.*gave up/gave up/; s/of client [0-9]*/of a worker/p}'

# Prints:
# given up: broken
# done: apple cherry pear plum shaky
# attempts that failed: 4
# gave up a message on 'jobs' of a worker: sh: exit status 1 (limit 3); it is in $bus/dead/ and the topic's name
