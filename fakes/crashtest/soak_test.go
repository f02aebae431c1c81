//go:build soak

package crashtest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes/crashtest"
)

func TestSoakPromisesHoldInRandomGames(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("TASKBRIDGE_SOAK_TIME"))
	if err != nil {
		t.Fatalf("TASKBRIDGE_SOAK_TIME: %v", err)
	}
	end := time.Now().Add(limit)
	for !t.Failed() && time.Now().Before(end) {
		seed := rand.Uint64()
		for name, separate := range map[string]bool{"one store": false, "separate stores": true} {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) {
				crashtest.Soak(t, crashtest.Harness{New: func(_ *testing.T, clock taskbridge.Clock) crashtest.Backend {
					store := memory.NewStore(memory.Options{Clock: clock})
					b := backend(store)
					b.Stores = taskbridge.Stores{Tasks: store, Events: store}
					if separate {
						b.Stores = taskbridge.Stores{Tasks: store.Tasks, Events: store.Events}
					}
					return b
				}}, seed)
			})
		}
	}
}
