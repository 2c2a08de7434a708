# Turns lib/wire/ops.def into the two tables of cule-frame(5), in mdoc. man/tables.sh puts them in place.
function args(line) {
	sub(/^[A-Z_]+\(/, "", line)
	sub(/\)$/, "", line)
	n = 0
	while (match(line, /^ *("[^"]*"|'[^']*'|[^,]+),?/)) {
		field = substr(line, 1, RLENGTH)
		line = substr(line, RLENGTH + 1)
		sub(/^ */, "", field)
		sub(/,$/, "", field)
		gsub(/^["']|["']$/, "", field)
		a[++n] = field
	}
}
function quoted(text) {
	gsub(/-/, "\\-", text)
	gsub(/"/, "\"\"", text)
	return text
}
/^CULE_SERVICE/ {
	args($0)
	chars = a[2] a[3] a[4]
	chars = chars (a[5] == "0" ? "\\e0" : a[5])
	services = services ".It Ql " chars " Ta " a[6] " Ta " quoted(a[7]) "\n"
	shown[a[1]] = a[6]
}
/^CULE_OP/ {
	args($0)
	who = a[1] == "ANY" ? "every" : shown[a[1]]
	ops = ops ".It " who " Ta " a[3] " Ta " a[4] " Ta " quoted(a[5]) "\n"
}
END {
	print ".Bl -column \"XXXXXXXX\" \"every\" \"the service registry\" -compact"
	print ".It Sy characters Ta Sy name Ta Sy what"
	printf "%s", services
	print ".El"
	print ".Pp"
	print ".Bl -column \"every\" \"0x0000\" \"unsubscribe\" \"what\" -compact"
	print ".It Sy service Ta Sy op Ta Sy name Ta Sy arguments and answer"
	printf "%s", ops
	print ".El"
}
