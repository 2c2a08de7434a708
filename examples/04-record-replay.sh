#!/usr/bin/env bash
# A bug, recorded where it happened. The recorder stands in the link and nobody notices it; the recording is then
# played to the corrected program, and only the answers that were wrong have changed.
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

# Adds up numbers, one a line; %d cuts off what is behind the point.
wrong='awk "{ s += \$1 } END { printf \"%d\n\", s }"'
right='awk "{ s += \$1 } END { printf \"%g\n\", s }"'
ready cule-ipc serve --listen "unix:$CULE_RUN/sum" --each "$wrong"
ready cule-ipc record --listen "unix:$CULE_RUN/door" --connect "unix:$CULE_RUN/sum" --to "$CULE_RUN/session.rec"
recorder=$!
for numbers in '1 2 3' '0.5 0.25' '10 20'; do
    tr ' ' '\n' <<<"$numbers" | cule-ipc call "unix:$CULE_RUN/door" math 0x4000 --payload -
done
kill "$recorder" && wait "$recorder"

echo '--- what was said'
cule-ipc decode "$CULE_RUN/session.rec" --filter kind=request --filter kind=reply | grep -o '"payload_text.*"'
echo '--- the same program again tells the same story'
cule-ipc replay --compare "$CULE_RUN/session.rec" "exec:cule-ipc serve --each '$wrong'" && echo 'no difference'
echo '--- the corrected one does not'
cule-ipc replay --compare "$CULE_RUN/session.rec" "exec:cule-ipc serve --each '$right'" 2>&1 || true

# Prints:
# 6
# 0
# 30
# --- what was said
# "payload_text":"1\n2\n3\n"
# "payload_text":"6\n"
# "payload_text":"0.5\n0.25\n"
# "payload_text":"0\n"
# "payload_text":"10\n20\n"
# "payload_text":"30\n"
# --- the same program again tells the same story
# no difference
# --- the corrected one does not
# link 1 request 1 math 0x4000
#   reply recorded 2 bytes '0\n'
#              now 5 bytes '0.75\n'
# cule-ipc: messages sent: 3, answers that differ: 1
