package remote_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
)

func atomicStores(*testing.T) taskbridge.Stores {
	store := memory.NewStore(memory.Options{})
	return taskbridge.Stores{Tasks: store, Events: store}
}

func separateStores(*testing.T) taskbridge.Stores {
	return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
}

// behind makes a lifecycle that reaches the stores through a server.
func behind(serve func(t *testing.T, handler http.Handler) (url string)) func(*testing.T, taskbridge.LifecycleOptions) taskbridge.TaskLifecycle {
	return func(t *testing.T, opts taskbridge.LifecycleOptions) taskbridge.TaskLifecycle {
		t.Helper()
		_, _, handler := newServer(t, opts, nil)
		lifecycle, err := remote.NewLifecycle(remote.Options{
			URL: serve(t, handler), Credential: credential, Synchronous: true,
			Limits: opts.Limits, BatchDelay: opts.TokenDelay, Retry: impatient,
		})
		if err != nil {
			t.Fatalf("NewLifecycle: %v", err)
		}
		t.Cleanup(lifecycle.CloseIdleConnections)
		return lifecycle
	}
}

func plain(t *testing.T, handler http.Handler) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func TestTheRemoteLifecycleConforms(t *testing.T) {
	conformance.RunLifecycle(t, conformance.LifecycleHarness{NewStores: atomicStores, New: behind(plain), Remote: true})
}

func TestTheRemoteLifecycleConformsThroughAHostileNetwork(t *testing.T) {
	conformsThroughAHostileNetwork(t, 1, 0.25)
}

func conformsThroughAHostileNetwork(t *testing.T, seed uint64, rate float64) {
	t.Helper()
	for name, stores := range map[string]func(*testing.T) taskbridge.Stores{"one store": atomicStores, "separate stores": separateStores} {
		t.Run(name, func(t *testing.T) {
			conformance.RunLifecycle(t, conformance.LifecycleHarness{
				NewStores: stores, Remote: true,
				New: behind(func(t *testing.T, handler http.Handler) string { return newHostile(t, handler, seed, rate).URL }),
			})
		})
	}
}
