//go:build soak

package httpapi

import (
	"testing"
	"time"
)

func TestSoakAThousandSubscribersThatStopReading(t *testing.T) {
	stopReading(t, 1_000, 100_000)
}

func TestSoakTenThousandSubscriptionsInTheMiddleOfBursts(t *testing.T) {
	bursts(t, 10_000, 10*time.Minute)
}
