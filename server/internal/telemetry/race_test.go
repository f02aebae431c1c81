//go:build race

package telemetry_test

// Under the race detector a pool drops some of what is put into it, on purpose.
const allocationsAllowed = 1
