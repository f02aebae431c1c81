//go:build soak

package k8sjob

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

func TestSoakWhateverHappensATaskHasOneEndAndItsReportsInTheirOrder(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("TASKBRIDGE_SOAK_TIME"))
	if err != nil {
		t.Fatalf("TASKBRIDGE_SOAK_TIME: %v", err)
	}
	for end := time.Now().Add(limit); !t.Failed() && time.Now().Before(end); {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { takeChance(t, seed) })
	}
}
