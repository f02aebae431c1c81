# Reads the events of all test runs (gotestsum's --jsonfile-timing-events) and
# prints a line a package as go test does, with the number of tests behind it,
# and the totals.

function field(name,   value) {
	if (!match($0, "\"" name "\":\"[^\"]*\"")) return ""
	value = substr($0, RSTART, RLENGTH)
	return substr(value, length(name) + 5, length(value) - length(name) - 5)
}

function seconds(   value) {
	if (!match($0, /"Elapsed":[0-9.e+-]+/)) return 0
	value = substr($0, RSTART + 10, RLENGTH - 10)
	return value + 0
}

{
	action = field("Action"); package = field("Package")
	if (field("Test") != "") { count[package, action]++; total[action]++; next }
	if (action == "pass" || action == "fail" || action == "skip") {
		if (!(package in end)) order[++packages] = package
		end[package] = action; elapsed[package] = seconds()
		if (action == "fail") broken++
	}
}

END {
	print ""
	for (i = 1; i <= packages; i++) {
		package = order[i]; action = end[package]
		if (action == "skip") { printf "?   \t%s\t[no test files]\n", package; continue }
		printf "%-4s\t%s\t%.3fs\t%d passed", action == "pass" ? "ok" : "FAIL", package, elapsed[package], count[package, "pass"]
		if (count[package, "fail"]) printf ", %d failed", count[package, "fail"]
		if (count[package, "skip"]) printf ", %d skipped", count[package, "skip"]
		print ""
	}
	printf "\n%d passed, %d failed, %d skipped (tests and subtests) in %d packages", total["pass"], total["fail"], total["skip"], packages
	if (broken) printf ", of which %d FAILED", broken # one that crashed has no failed test
	print ""
}
