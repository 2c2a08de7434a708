#!/usr/bin/env bash
# Where the time goes: a request is traced through two services, of which the first asks the second. Written as spans
# here; without --lines it is Chrome's trace JSON, which ui.perfetto.dev opens.
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

ready cule-ipc serve --name pricelist --listen "unix:$CULE_RUN/prices" --each 'echo 3.20'
ready cule-ipc serve --name shop --listen "unix:$CULE_RUN/shop" --each \
    'echo "that is $(cule-ipc call "unix:$CULE_RUN/prices" shop 0x4000) a kilo"'
ready cule-ipc trace --lines --count 2 "unix:$CULE_RUN/shop" "unix:$CULE_RUN/prices" >"$CULE_RUN/spans"
tracer=$!
cule-ipc call "unix:$CULE_RUN/shop" shop 0x4000 --payload cherries
wait "$tracer"

field() { sed -n "/\"program\":\"$1\"/s/.*\"$2\":\"*\([^,\"]*\).*/\1/p" "$CULE_RUN/spans"; }
[ "$(field shop trace)" = "$(field pricelist trace)" ] && echo 'one trace'
[ "$(field pricelist parent)" = "$(field shop span)" ] && echo 'the price was asked for by the shop'
outer=$(($(field shop end_ns) - $(field shop start_ns)))
inner=$(($(field pricelist end_ns) - $(field pricelist start_ns)))
[ "$inner" -lt "$outer" ] && echo 'and took a part of its time'

# Prints:
# that is 3.20 a kilo
# one trace
# the price was asked for by the shop
# and took a part of its time
