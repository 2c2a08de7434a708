#!/usr/bin/env bash
# A consumer that does not keep up. Each topic states what happens then: with overflow=block the publisher waits and
# nothing is lost; with drop-oldest it goes on, what waits is bounded, and every message dropped is counted.
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

ready cule-ipc bus --topic 'log/whole:overflow=block' --topic 'log/fresh:overflow=drop-oldest'
lines=100000

# Two consumers whose output is a pipe that nobody reads yet.
mkfifo "$CULE_RUN/whole" "$CULE_RUN/fresh"
exec 4<>"$CULE_RUN/whole" 5<>"$CULE_RUN/fresh"
ready cule-ipc sub log/whole --queue 100 >&4
ready cule-ipc sub log/fresh --queue 100 >&5

{ seq "$lines" && echo end; } | cule-ipc pub log/whole --format lines --timeout 30s &
whole=$!
{ seq "$lines" && echo end; } | cule-ipc pub log/fresh --format lines
echo 'log/fresh: the publisher is done, its consumer is not'
kill -0 "$whole" && echo 'log/whole: the publisher waits'

sed '/^end$/q' <&4 >"$CULE_RUN/whole.got"
wait "$whole" && echo 'log/whole: now it is done'
sed '/^end$/q' <&5 >"$CULE_RUN/fresh.got"

dropped() { cule-ipc list topics "log/$1" --json | grep -o '"dropped":[0-9]*' | tr -dc 0-9; }
echo "log/whole: $(wc -l <"$CULE_RUN/whole.got") lines received, $(dropped whole) dropped"
[ $(($(wc -l <"$CULE_RUN/fresh.got") + $(dropped fresh))) = $((lines + 1)) ] &&
    echo 'log/fresh: received and dropped add up'
cule-ipc explain log/fresh | sed 's/^.* dropped [0-9]*/dropped some/; s/of client [0-9]*/of a client/'

# Prints:
# log/fresh: the publisher is done, its consumer is not
# log/whole: the publisher waits
# log/whole: now it is done
# log/whole: 100001 lines received, 0 dropped
# log/fresh: received and dropped add up
# dropped some messages on 'log/fresh' of a client: queue full: messages (limit 100); a slow subscriber: raise "queue", or choose overflow=block or disconnect
