#!/usr/bin/env bash
# What is generated and committed is what the generators print now: completions. Option tables hold to their rules.
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/files.sh"

completions() {
    completions/generate "$TAP_O/bin/$1" "$TAP_DIR/made"
    same "completions/bash/$1" "$TAP_DIR/made/bash/$1"
    same "completions/zsh/_$1" "$TAP_DIR/made/zsh/_$1"
    same "completions/fish/$1.fish" "$TAP_DIR/made/fish/$1.fish"
}
man_tables() {
    local f
    files 'man/*.[1-9]' | xargs -r grep -l '^\.\\" BEGIN ' | while IFS= read -r f; do
        man/tables.sh "$f" >"$TAP_DIR/page"
        cmp -s "$f" "$TAP_DIR/page" || { echo "$f: its tables are stale (man/tables.sh)" && diff "$f" "$TAP_DIR/page"; }
    done | none
}
nothing_else() {
    local f
    files 'completions/*' | grep -vx completions/generate | while IFS= read -r f; do
        case $f in
            completions/bash/*) p=${f##*/} ;;
            completions/zsh/_*) p=${f##*/_} ;;
            completions/fish/*.fish) p=$(basename "$f" .fish) ;;
            *) p=none ;;
        esac
        [ -d "cmd/$p" ] || echo "$f belongs to no program"
    done | none
}

for d in cmd/*/; do
    p=$(basename "$d")
    test_case "the option table of $p holds to the rules" "$p --dump-options >/dev/null"
    test_case "the completions of $p are fresh (make completions)" "completions $p"
done
test_case 'the tables in manual pages are fresh' man_tables
test_case 'no completions but of our programs' nothing_else
tap_done
