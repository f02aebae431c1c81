//go:build soak

package remote_test

import (
	"context"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/core/remote"
)

func TestSoakAMillionTokensThroughAHostileNetwork(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	t.Logf("seed %d", seed)
	tellAll(ctx, t, seed, 50, 20_000, remote.Options{MaxBufferedReports: 3, BatchDelay: time.Millisecond})
}
