#!/usr/bin/env bash
# Prints a man page with the blocks between `.\" BEGIN name` and `.\" END name` made anew from the tables they come from.
# usage: man/tables.sh PAGE (from the top of the tree)
set -eu
awk -v page="$1" '
function table(name,   cmd, line) {
    cmd = name == "ops" ? "awk -f man/ops.awk lib/wire/ops.def" : "awk -f man/errors.awk lib/base/err.def"
    while ((cmd | getline line) > 0) {
        print line
    }
    close(cmd)
}
/^\.\\" BEGIN / { print; table($3); skip = 1; next }
/^\.\\" END / { skip = 0 }
!skip { print }
' "$1"
