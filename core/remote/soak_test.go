//go:build soak

package remote_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/core/remote"
)

func TestSoakAMillionTokensThroughAHostileNetwork(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	seed := anySeed(t)
	tellAll(ctx, t, seed, 50, 20_000, remote.Options{MaxBufferedReports: 3, BatchDelay: time.Millisecond})
}

func TestSoakTheRemoteLifecycleConformsThroughManyHostileNetworks(t *testing.T) {
	seed := anySeed(t)
	for n := range uint64(20) {
		t.Run(fmt.Sprint(n), func(t *testing.T) { conformsThroughAHostileNetwork(t, seed+n, 0.1+float64(n%5)/10) })
	}
}

func anySeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	t.Logf("seed %d", seed)
	return seed
}
