#!/usr/bin/env bash
# The layers: who includes whom, and which folder alone may know a foreign library.
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"

# The quoted includes of a folder that begin with none of the allowed rooms.
includes_only() {
    local dir=$1 allowed=$2 f
    files "lib/$dir/*.[ch]" "lib/$dir/*.def" | while IFS= read -r f; do
        grep -nE '^ *# *include "' "$f" | grep -vE "\"($allowed)/" | grep -E '"[a-z0-9_]+/' | sed "s|^|$f:|"
    done
}

# Files outside of a room that include a foreign header.
only_in() {
    local header=$1 room=$2
    files 'lib/*.[ch]' 'cmd/*.[ch]' | grep -vE "^($room)" | xargs -r grep -nE "^ *# *include <($header)" /dev/null
}

base() { includes_only base base | none; }
wire() { includes_only wire 'base|wire' | none; }
cli() { includes_only cli 'base|cli' | none; }
core() { includes_only core 'base|wire|core' | none; }
io() { includes_only io 'base|wire|io' | none; }
adapters() {
    local d
    for d in lib/*/; do
        d=$(basename "$d")
        case $d in
            base | wire | cli | core | io) ;;
            *) includes_only "$d" "base|wire|io|$d" ;;
        esac
    done | none
}
core_is_pure() {
    local headers='unistd|fcntl|sys/socket|sys/epoll|sys/eventfd|sys/mman|sys/random|poll|pthread|time|sys/time|signal'
    {
        files 'lib/core/*.[ch]' | xargs -r grep -nE "^ *# *include <($headers)\.h>" /dev/null
        # shellcheck disable=SC2046
        grep_c '\b(clock_gettime|gettimeofday|time|getrandom|rand|random|socket|open|read|write|getpid) *\(' code \
            $(files 'lib/core/*.c')
    } | none
}
foreign() {
    {
        only_in 'uv\.h' 'lib/io/'
        only_in 'sqlite3\.h' 'lib/store/'
        only_in 'sodium' 'lib/crypt/'
        only_in 'gnutls/' 'lib/tls/'
        only_in 'curl/' 'lib/fetch/'
        only_in 'nats(/|\.h)' 'lib/nats/|cmd/cule-ipc/bridge'
    } | none
}
library_is_silent() {
    # shellcheck disable=SC2046
    grep_c '(^|[^a-z_>.])(printf|puts|putchar|perror|fprintf|vfprintf|getenv|secure_getenv|exit|_exit|abort) *\(' code \
        $(files 'lib/*.c' | grep -v '^lib/cli/') | grep -vE 'spawn[a-z_]*\.c:[0-9]+:.*_exit' | none
}

test_case 'base includes base alone' base
test_case 'wire includes base and wire' wire
test_case 'cli includes base and cli' cli
test_case 'core includes base, wire and core' core
test_case 'io includes base, wire and io' io
test_case 'adapters include base, wire, io and themselves, never each other' adapters
test_case 'core has no clock, descriptors or randomness' core_is_pure
test_case 'each foreign library has one room' foreign
test_case 'the library neither prints, exits nor reads the environment' library_is_silent
tap_done
