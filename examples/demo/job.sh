# shellcheck shell=sh
# One job of the demo, on standard input: asks the pool of workers at $POOL, publishes its answer. When that fails the
# exit status says so, and cule-ipc work gives the job back to the bus. Notes what it sees in $NOTES.
job=$(cat)
[ "$CULE_REDELIVERED" = 0 ] || echo "$NAME $job" >>"$NOTES/redelivered"
if ! answer=$(cule-ipc call "$POOL" text 0x4000 --payload "$job" --timeout 20s 2>"$NOTES/why.$NAME.$$"); then
    # In milliseconds, to be compared with the time of the worker's death.
    echo "$(($(date +%s%N) / 1000000)) $NAME $job: $(cat "$NOTES/why.$NAME.$$")" >>"$NOTES/told"
    exit 1
fi
rm -f "$NOTES/why.$NAME.$$"
cule-ipc pub "tree/counts/$NAME" "$answer"
