# Turns lib/base/err.def into the table of errors in cule-frame(5), in mdoc. man/tables.sh puts it in place.
/^CULE_ERROR/ {
	line = $0
	sub(/^CULE_ERROR\(/, "", line)
	sub(/\)$/, "", line)
	split(line, a, /, */)
	text = a[4]
	gsub(/"/, "", text)
	rows = rows ".It " a[2] " Ta " tolower(a[1]) " Ta " a[3] " Ta " text "\n"
}
END {
	print ".Bl -column \"code\" \"peer_restarted\" \"status\" \"what it means\" -compact"
	print ".It Sy code Ta Sy name Ta Sy status Ta Sy what it means"
	printf "%s", rows
	print ".El"
}
