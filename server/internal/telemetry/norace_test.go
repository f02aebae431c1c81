//go:build !race

package telemetry_test

const allocationsAllowed = 0
