#!/usr/bin/env bash
# What every program does alike: help, version, errors, exit statuses, terminals, full disks, completions.
. "${0%/*}/../lib/tap.sh"
cd "$TAP_ROOT" || exit 1
PROGRAMS=$(for d in cmd/*/; do echo "$TAP_O/bin/$(basename "$d")"; done)

help_on_stdout() {
    for p in $PROGRAMS; do
        "$p" --help >out 2>err
        [ -s out ]
        [ ! -s err ]
        contains out "^usage: ${p##*/} "
        status 0 "$p" help >again
        same out again
        awk 'length > 100' out >long
        [ ! -s long ]
    done
}
version() {
    for p in $PROGRAMS; do
        "$p" --version >out
        contains out "^${p##*/} [0-9]+\.[0-9]+\.[0-9]+$"
    done
}
help_of_subcommands() {
    for p in $PROGRAMS; do
        "$p" --dump-options >table
        # shellcheck disable=SC2013
        for c in $(awk -F '\t' '$1 == "command" { print $2 }' table); do
            "$p" "$c" --help >out
            contains out "^usage: ${p##*/} $c "
            "$p" help "$c" >again
            same out again
        done
    done
}
usage_errors() {
    status 2 cule-ipc >out 2>err
    [ ! -s out ]
    contains err '^cule-ipc: a subcommand is missing'
    status 2 cule-ipc helpp >out 2>err
    is err "cule-ipc: unknown subcommand 'helpp'; did you mean 'help'?"
    status 2 cule-ipc --vesion 2>err
    is err "cule-ipc: unknown option '--vesion'; did you mean '--version'?"
}
json_errors() {
    status 2 cule-ipc --json "no\"such" >out 2>err
    [ ! -s out ]
    jq -e '.error == "usage" and .code == 2 and (.message | contains("no\"such"))' err
    wc -l <err >count
    is count 1
}
full_disk() {
    status 4 cule-ipc --help >/dev/full 2>err
    contains err '^cule-ipc: cannot write to standard output: No space left on device$'
}
reader_gone() {
    exec 7> >(exec true)
    wait "$!"
    status 4 cule-ipc --help >&7 2>err
    [ ! -s err ]
}
closed_descriptors() {
    status 4 cule-ipc --version >&- 2>err
}
narrow_terminal() {
    COLUMNS=60 cule-ipc --help >out
    awk 'length > 60' out >long
    [ ! -s long ] || tap_fail "$(cat long)"
}
dump_is_tsv() {
    for p in $PROGRAMS; do
        "$p" --dump-options >table
        awk -F '\t' '
            { want["program"] = 4; want["command"] = 5; want["option"] = 11; want["arg"] = 6 }
            NF != want[$1] { print NR ": " $0 }
            { for (i = 1; i <= NF; i++) if ($i == "") print NR ": an empty field" }' table >bad
        [ ! -s bad ] || tap_fail "$(cat bad)"
    done
}

# Completions, in the shells themselves.
bash_word() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    _cule_ipc
    printf '%s\n' "${COMPREPLY[@]}" >words
}
in_bash() {
    # shellcheck disable=SC1091
    . "$TAP_ROOT/completions/bash/cule-ipc"
    bash_word 'cule-ipc '
    contains words '^help$'
    bash_word 'cule-ipc he'
    is words help
    bash_word 'cule-ipc --vers'
    is words --version
    cule-ipc --dump-options | grep -qP '^option\tcall\t' || return 0
    bash_word 'cule-ipc call --'
    contains words '^--timeout$'
    bash_word "cule-ipc call unix:$CULE_RUN/x bu"
    contains words '^bus$'
}
in_zsh() {
    need zsh
    zsh -n "$TAP_ROOT/completions/zsh/_cule-ipc"
    cat >try.zsh <<'END'
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1="READY> "; autoload -Uz compinit; fpath=('$1' $fpath); compinit -u -d '$2'; stty columns 200 -echo; print LOAD""ED'
zpty -r z line '*LOADED*'
zpty -w -n z $'cule-ipc hel\t\n'
zpty -r z line '*usage: cule-ipc*'
print -r -- "$line"
zpty -d z
END
    timeout 20 zsh -f try.zsh "$TAP_ROOT/completions/zsh" "$PWD/dump" >out 2>&1 </dev/null
    contains out 'usage: cule-ipc'
}
in_fish() {
    need fish
    export HOME=$PWD
    fish -c "source $TAP_ROOT/completions/fish/cule-ipc.fish; complete -C 'cule-ipc '" >words
    contains words '^help'
    fish -c "source $TAP_ROOT/completions/fish/cule-ipc.fish; complete -C 'cule-ipc --vers'" >words
    contains words '^--version'
}
live() {
    cule-ipc __complete service b >words
    contains words '^bus$'
    cule-ipc __complete op stat >words
    contains words '^stats$'
    cule-ipc __complete endpoint '' >words
    contains words '^unix:$'
    status 2 cule-ipc __complete nonsense '' 2>err
}

test_case '--help and help print on stdout, status 0' help_on_stdout
test_case '--version prints the program and its version' version
test_case 'every subcommand has its help' help_of_subcommands
test_case 'usage errors: status 2, stderr, the nearest name' usage_errors
test_case 'with --json an error is one JSON object' json_errors
test_case 'a full disk is no success' full_disk
test_case 'a reader that went away is status 4 without a message' reader_gone
test_case 'a closed stdout is status 4' closed_descriptors
test_case 'help folds to the terminal' narrow_terminal
test_case 'the dumped table is TSV of full rows' dump_is_tsv
test_case 'completion in bash' in_bash
test_case 'completion in zsh' in_zsh
test_case 'completion in fish' in_fish
test_case 'live completion' live
tap_done
