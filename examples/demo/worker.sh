# shellcheck shell=sh
# worker.py in plain shell: counts lines, words and bytes of a file, or of a commit's message. Names have neither
# quotes nor backslashes in them, so that JSON is easily read: the demo sees to that.
while IFS= read -r line; do
    id=${line#*\"id\":\"}
    id=${id%%\"*}
    job=${line#*\"payload_text\":\"}
    job=${job%%\"*}
    name=${job#* }
    case $job in
        file\ *) data() { cat <"$name"; } ;;
        commit\ *) data() { git log -1 --format=%B "$name"; } ;;
        *) data() { false; } ;;
    esac
    # shellcheck disable=SC2046 # three numbers are wanted
    set -- $(data | wc -lc) $(data | tr -cs A-Za-z '\n' | grep -c .)
    if [ "$2" -gt 0 ] || data >/dev/null; then
        echo "{\"id\":\"$id\",\"payload_text\":\"${job%% *} $1 $3 $2 $name\"}"
    else
        echo "{\"id\":\"$id\",\"error\":\"cannot count $name\"}"
    fi
done
