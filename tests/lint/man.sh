#!/usr/bin/env bash
# Manual pages: mandoc's lint, and each program's options held against its option table in both directions.
# tests/lib/mantable.awk states the form in which a page lists subcommands and options.
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"

mandoc_lint() {
    need mandoc
    # Whether other packages' pages are installed is no matter of ours; references to our own are looked up below.
    files 'man/*.[1-9]' | xargs -r mandoc -T lint -W style | grep -vE 'referenced manual not found|mandoc\.db' | none
}

references() {
    local f
    files 'man/*.[1-9]' | while IFS= read -r f; do
        awk -v f="$f" '/^\.Xr cule/ { print f ":" FNR, $2, $3 }' "$f"
    done | while read -r at name section; do
        [ -e "man/man$section/$name.$section" ] || echo "$at: $name($section) does not exist"
    done | none
}

options() {
    local name=$1
    page=man/man1/$name.1
    [ -e "$page" ] || tap_fail "$page is missing"
    "$name" --dump-options >"$TAP_DIR/table"
    awk -f tests/lib/mantable.awk -v page="$page" "$TAP_DIR/table" "$page" | sort | none
}

# What --help prints must fit the table too: every option of the table, in the help of its command.
helped() {
    local name=$1
    "$name" --dump-options | awk -F '\t' '$1 == "option" && $2 != "-" && $10 != "hidden" { print $2, $4 }' |
        while read -r command long; do
            "$name" "$command" --help | grep -qE -- "--$long( |$)" || echo "$name $command --help lacks --$long"
        done | none
}

installed_names() {
    local f
    files 'man/*.[1-9]' | while IFS= read -r f; do
        [[ $f =~ ^man/man([1-9])/[a-z_-]+\.([1-9])$ ]] && [ "${BASH_REMATCH[1]}" = "${BASH_REMATCH[2]}" ] ||
            echo "$f: a page lies in man/manN and ends in .N"
    done | none
}

test_case 'mandoc -T lint -W style' mandoc_lint
test_case 'pages refer to pages that exist' references
test_case 'pages lie where man looks' installed_names
for d in cmd/*/; do
    p=$(basename "$d")
    test_case "$p(1) and the option table agree" "options $p"
    test_case "$p --help has every option of the table" "helped $p"
done
tap_done
