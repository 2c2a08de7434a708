#!/usr/bin/env bash
# Another language: cule_frame.py, written from cule-frame(5) alone, calls a service of ours and serves one itself.
# It is below 80 lines of Python and needs nothing but what comes with it.
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
command -v python3 >/dev/null || exit 77 # skipped
python="python3 $(dirname "$0")/cule_frame.py"

ready cule-ipc serve --listen "unix:$CULE_RUN/count" --each 'wc -c'
echo "Python asks: $($python call "$CULE_RUN/count" text 0x4000 'how long is this?')"

$python serve "$CULE_RUN/upper" &
echo "Python answers: $(cule-ipc call --wait 10s "unix:$CULE_RUN/upper" text 0x4000 --payload 'in capitals')"
# More than one frame holds.
head -c 200000 /dev/zero | tr '\0' x | cule-ipc call "unix:$CULE_RUN/upper" text 0x4000 --payload - | tr -d X | wc -c

# Prints:
# Python asks: 17
# Python answers: IN CAPITALS
# 0
