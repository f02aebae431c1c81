//go:build soak

package sqlitestore_test

import (
	"os"
	"testing"
	"time"
)

// TestSoakOfWhatWasAcknowledgedOutlivesSIGKILL kills for as long as the
// environment says; each folder sees a few dozen kills.
func TestSoakOfWhatWasAcknowledgedOutlivesSIGKILL(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("TASKBRIDGE_SOAK_TIME"))
	if err != nil {
		t.Fatalf("TASKBRIDGE_SOAK_TIME: %v", err)
	}
	kills := 0
	for begin := time.Now(); time.Since(begin) < limit; {
		const rounds = 30
		killAgainAndAgain(t, rounds)
		kills += rounds
	}
	t.Logf("%d kills", kills)
}
