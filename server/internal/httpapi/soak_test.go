//go:build soak

package httpapi

import (
	"testing"
	"time"
)

func TestSoakAThousandSubscribersThatStopReading(t *testing.T) {
	stopReading(t, 1_000, 100_000)
}

func TestSoakWhateverHappensEveryClientGetsTheStreamToTheByteAndOneEnd(t *testing.T) {
	over := time.Now().Add(10 * time.Minute)
	for seed := uint64(1000); time.Now().Before(over) && !t.Failed(); seed++ {
		anything(t, seed, 16, 600)
	}
}

func TestSoakTenThousandSubscriptionsInTheMiddleOfBursts(t *testing.T) {
	bursts(t, 10_000, 10*time.Minute)
}
