#!/usr/bin/env bash
# Who comes late: a retained message tells the state of things at once, a history what happened before, and a sequence
# number where to go on after a pause.
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

ready cule-ipc bus --topic 'house/events:history=100'

# The state of each room is kept, the latest only.
cule-ipc pub house/kitchen/temperature 19.5 --retain
cule-ipc pub house/cellar/temperature 11 --retain
cule-ipc pub house/kitchen/temperature 20.5 --retain
printf '%s\n' 'door opened' 'light on' 'door closed' 'light off' | cule-ipc pub house/events --format lines --ack

echo '--- the state'
cule-ipc sub 'house/+/temperature' --topics --count 2 | sort
echo '--- the last two events'
cule-ipc sub house/events --last 2 --count 2
echo '--- what followed on number 1'
cule-ipc sub house/events --from 2 --count 3

# Prints:
# --- the state
# house/cellar/temperature	11
# house/kitchen/temperature	20.5
# --- the last two events
# door closed
# light off
# --- what followed on number 1
# light on
# door closed
# light off
