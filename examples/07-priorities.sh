#!/usr/bin/env bash
# Four priorities: what is critical overtakes what waits. One worker is busy with a job while others queue up for it.
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
mkfifo "$CULE_RUN/begun" "$CULE_RUN/go"
ready cule-ipc work jobs --count 6 -- sh -c 'read -r job
    if [ "$job" = first ]; then echo >"$CULE_RUN/begun"; read -r _ <"$CULE_RUN/go"; fi
    echo "$job" >>"$CULE_RUN/order"'
worker=$!

cule-ipc pub jobs first
read -r <"$CULE_RUN/begun" # it is at work, and whatever comes now has to wait
for job in 'report 1' 'report 2' 'report 3'; do cule-ipc pub jobs "$job" --priority low; done
cule-ipc pub jobs invoice
cule-ipc pub jobs 'fire!' --priority critical
echo >"$CULE_RUN/go"

wait "$worker"
cat "$CULE_RUN/order"

# Prints:
# first
# fire!
# invoice
# report 1
# report 2
# report 3
