#!/usr/bin/env bash
# One program, many ways to it: a Unix socket, shared memory, TCP, a relay between two of them, a command that is
# started for the call. Where something is, is a word in the command line; programs do not change with it.
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

# Port 0 lets the system choose one, which the server tells.
ready cule-ipc serve --log-level info --listen "unix:$CULE_RUN/a" --listen "ring:$CULE_RUN/b" --listen tcp:127.0.0.1:0 \
    --each 'wc -c' 2>"$CULE_RUN/log"
port=$(sed -n 's/.*listening.*tcp:127.0.0.1:\([0-9]*\).*/\1/p' "$CULE_RUN/log")
ready cule-ipc relay --listen "unix:$CULE_RUN/c" "tcp:127.0.0.1:$port"
child="exec:cule-ipc serve --each 'wc -c'"

for endpoint in "unix:$CULE_RUN/a" "ring:$CULE_RUN/b" "tcp:127.0.0.1:$port" "unix:$CULE_RUN/c" "$child"; do
    seq 10000 | cule-ipc call "$endpoint" text 0x4000 --payload - | sed "s|^|${endpoint%%:*}: |"
done
# A file is an endpoint too.
cule-ipc send "file:$CULE_RUN/said" text 0x4000 --payload 'to whom it may concern'
cule-ipc decode "$CULE_RUN/said" --filter kind=event

# Prints:
# unix: 48894
# ring: 48894
# tcp: 48894
# unix: 48894
# exec: 48894
# {"kind":"event","service":"text","op":16384,"payload_text":"to whom it may concern"}
