#!/usr/bin/env bash
# Who may do what on a bus stands in a file, by user, certificate or token; whoever is denied is told why, and so is
# whoever looks after the bus.
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

echo 'a secret of the sensor' >"$CULE_RUN/sensor.token"
cat >"$CULE_RUN/acl" <<EOF
token sensor sha256:$(tr -d '\n' <"$CULE_RUN/sensor.token" | sha256sum | cut -d ' ' -f 1)
allow token:sensor publish sensors/#
deny  *            publish sensors/#
allow uid:$(id -u) all     #
EOF
ready cule-ipc bus --acl "$CULE_RUN/acl"

cule-ipc pub sensors/door open --token-file "$CULE_RUN/sensor.token" && echo 'the sensor may'
cule-ipc pub sensors/door open || echo "we may not: status $?"
cule-ipc pub lamp on && echo 'but elsewhere we may'
cule-ipc explain | sed 's/^[^d]*denied/denied/; s/client [0-9]*/a client/'

# Prints:
# the sensor may
# we may not: status 8
# but elsewhere we may
# denied an attempt on 'sensors/door' of a client: ACL line 3: deny  *            publish sensors/#
