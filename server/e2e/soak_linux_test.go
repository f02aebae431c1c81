//go:build soak

package e2e

import (
	"os"
	"testing"
	"time"
)

func TestSoakOfKillsUnderLoad(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("TASKBRIDGE_SOAK_TIME"))
	if err != nil {
		t.Fatalf("TASKBRIDGE_SOAK_TIME: %v", err)
	}
	end := time.Now().Add(limit)
	killUnderLoad(t, func(round int) bool { return round <= killRounds || time.Now().Before(end) })
}
