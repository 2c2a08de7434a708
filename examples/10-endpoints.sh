#!/usr/bin/env bash
# One program, many ways to it: a Unix socket, shared memory, TCP, a command that is started for the call, and a relay
# between two of them. Where something is, is a word in the command line; programs do not change with it.
set -eu
PATH=$PATH:$(cd "$(dirname "$0")" && pwd)/../build/bin
CULE_RUN=$(mktemp -d)
export CULE_RUN
trap 'kill $(jobs -p | tac) 2>/dev/null || true; wait; rm -rf "$CULE_RUN"' EXIT
ready() { # starts a program and waits until it says that it is
    mkfifo "$CULE_RUN/ready"
    CULE_READY_FD=3 "$@" 3>"$CULE_RUN/ready" &
    read -r <"$CULE_RUN/ready" && rm "$CULE_RUN/ready"
}

greet='echo "hello over ${CULE_PEER_ADDRESS%%:*}"'
port=$((20000 + RANDOM % 20000))
ready cule-ipc serve --listen "unix:$CULE_RUN/a" --listen "ring:$CULE_RUN/b" --listen "tcp:127.0.0.1:$port" --each "$greet"
ready cule-ipc relay --listen "unix:$CULE_RUN/c" "tcp:127.0.0.1:$port"

for endpoint in "unix:$CULE_RUN/a" "ring:$CULE_RUN/b" "tcp:127.0.0.1:$port" "unix:$CULE_RUN/c"; do
    cule-ipc call "$endpoint" my 0x4000
done
cule-ipc call "exec:cule-ipc serve --each 'echo hello from a child'" my 0x4000
# A file is one too: what would be sent, as JSON.
cule-ipc send "file:$CULE_RUN/said" my 0x4000 --payload 'to whom it may concern'
cule-ipc decode "$CULE_RUN/said" --filter kind=event
