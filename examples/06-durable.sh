#!/usr/bin/env bash
# Nothing acknowledged is lost: the broker is killed (kill -9) with work left, started again on its store, and the group
# of workers goes on where it was. What was under way then may come twice, marked as redelivered.
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

bus() { ready cule-ipc bus --store "$CULE_RUN/bus.db" --topic 'orders:durability=disk'; }
bus
broker=$!
# The group's position is kept from the first time that it subscribes under a name.
ready cule-ipc work orders --group shop --durable shop --count 2 -- xargs echo did >"$CULE_RUN/did"
worker=$!
# With --ack an order is on disk before this ends.
seq 1 5 | sed 's/^/order /' | cule-ipc pub orders --format lines --ack
wait "$worker"
echo "$(wc -l <"$CULE_RUN/did") orders done"

kill -KILL "$broker"
wait "$broker" 2>/dev/null || echo 'the broker is dead'
bus
echo 'another one has its store'
cule-ipc pub orders 'order 6'
ready cule-ipc work orders --group shop --durable shop -- xargs echo did >>"$CULE_RUN/did"
timeout 20 sh -c 'until grep -q "order 6" "$CULE_RUN/did"; do sleep 0.05; done'
sort -u "$CULE_RUN/did"

# Prints:
# 2 orders done
# the broker is dead
# another one has its store
# did order 1
# did order 2
# did order 3
# did order 4
# did order 5
# did order 6
