#!/usr/bin/env bash
# A service in one line of shell: each request is a run of a command, with the payload on its standard input and the
# header in its environment. What it prints is the answer, its exit status the verdict.
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

# 0x4000 is the first operation that is the user's own.
ready cule-ipc serve --listen "unix:$CULE_RUN/text" --each '
    case $CULE_OP in
        16384) tr a-z A-Z ;;
        16385) wc -l ;;
        *) echo "operation $CULE_OP is none of mine" >&2 && exit 1 ;;
    esac'

cule-ipc call "unix:$CULE_RUN/text" text 0x4000 --payload 'hello, world' && echo
# A payload may be large.
seq 100000 | cule-ipc call "unix:$CULE_RUN/text" text 0x4001 --payload -
# An error is told on stderr, and is the exit status.
cule-ipc call "unix:$CULE_RUN/text" text 0x4002 || echo "that was status $?"
# Every service answers for itself too.
cule-ipc call "unix:$CULE_RUN/text" cule health && echo

# Prints:
# HELLO, WORLD
# 100000
# that was status 1
# {"state":"ok","reason":""}
