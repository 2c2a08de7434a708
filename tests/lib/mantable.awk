# Holds a manual page's options against a program's option table. Input: PROGRAM --dump-options, then the page.
#
# The page's convention: under .Sh SUBCOMMANDS each subcommand has a section ".Ss NAME"; its options are list items
# of the form ".It Fl f , Fl Fl format Ar FORMAT" ("Fl -format" does too) in that section, and an option's default stands in its item's text.
# The options common to all commands are items under .Sh OPTIONS (or COMMON OPTIONS). A program without subcommands
# has all its options under .Sh OPTIONS. Prints what does not agree.
BEGIN { FS = "\t"; common["json"]; common["timeout"]; common["verbose"]; common["help"]; common["version"] }

FILENAME != page {
    if ($1 == "option" && $2 == "-") multi = 1
    if ($1 == "command" && $4 != "hidden") { commands[$2]; order[++ncommands] = $2 }
    if ($1 == "option" && $10 != "hidden") {
        table[$2, $4] = $3
        default_of[$2, $4] = $9
        if (!($4 in common)) must[++nmust] = $2 SUBSEP $4
    }
    next
}

/^\.\\"/ { next }
/^\.Sh / { heading = substr($0, 5); section = heading ~ /OPTIONS/ ? "-" : ""; inside = heading == "SUBCOMMANDS"; item = ""; next }
/^\.Ss / {
    item = ""
    if (!inside) next
    section = substr($0, 5)
    if (!(section in commands)) print page ":" FNR ": .Ss " section ": no such subcommand"
    seen[section] = 1
    next
}
/^\.It / {
    item = ""
    if (section == "" || $0 !~ /Fl /) next
    n = split($0, w, " ")
    long = letter = ""
    for (i = 2; i < n; i++) if (w[i] == "Fl") {
        if (w[i + 1] == "Fl") { long = w[i + 2]; gsub(/\\-/, "-", long); i += 2; continue }
        name = w[i + 1]
        gsub(/\\-/, "-", name)
        if (name ~ /^--?[a-z]/) { sub(/^-+/, "", name); long = name } else if (length(name) == 1) letter = name
    }
    if (long == "") { print page ":" FNR ": an option without its long form: " $0; next }
    documented[section, long] = letter
    line[section, long] = FNR
    item = section SUBSEP long
    next
}
item != "" { text[item] = text[item] " " $0 " " }

END {
    for (i = 1; i <= ncommands; i++) if (multi && !seen[order[i]]) print page ": no section .Ss " order[i]
    for (i = 1; i <= nmust; i++) {
        split(must[i], k, SUBSEP)
        key = must[i]
        if (!multi) key = "-" SUBSEP k[2]
        if (!(key in documented)) { print page ": --" k[2] " of " k[1] " is not documented"; continue }
        d = default_of[must[i]]
        if (d != "-" && index(text[key], " " d " ") == 0 && index(text[key], " " d ".") == 0 &&
            index(text[key], " " d ",") == 0)
            print page ":" line[key] ": --" k[2] " of " k[1] ": its default, " d ", is not told"
    }
    for (c in common) if (!(("-", c) in documented)) print page ": --" c " is not among the common options"
    for (key in documented) {
        split(key, k, SUBSEP)
        if (k[1] == "-" && multi && !(k[2] in common)) { print page ":" line[key] ": --" k[2] " is not common to all"; continue }
        c = k[1] == "-" && !multi ? order[1] : k[1]
        if (k[1] == "-" && k[2] in common && !((c, k[2]) in table)) continue
        if (!((c, k[2]) in table)) { print page ":" line[key] ": " c " has no option --" k[2]; continue }
        t = table[c, k[2]]
        if (t == "-") t = ""
        if (documented[key] != t) print page ":" line[key] ": --" k[2] " of " c ": short form is '" t "', not '" documented[key] "'"
    }
}
