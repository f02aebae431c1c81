//go:build linux

package temporaladapter

import (
	"encoding/json"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
)

func TestTheExecutorConforms(t *testing.T) {
	t.Parallel()
	separate := func(*testing.T) taskbridge.Stores {
		return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
	}
	for name, c := range map[string]struct {
		stores func(*testing.T) taskbridge.Stores
		remote bool // the workers report over HTTP
	}{
		"atomic stores": {}, "separate stores": {stores: separate}, "remote workers": {remote: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformance.RunExecutor(t, conformance.ExecutorHarness{
				NewStores: c.stores,
				New: func(t *testing.T, stores taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
					return newRuntime(t, stores, lifecycle, c.remote)
				},
				Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":[1,"$x <雪>"]}`), Result: json.RawMessage(`{"a":[1,"$x <雪>"]}`)},
				Fails:     conformance.Work{Type: "fail", Input: json.RawMessage(`{"type":"NO_STOCK"}`), Code: "NO_STOCK"},
				RunsOn:    conformance.Work{Type: "wait"},
				Rejected:  conformance.Work{Type: "nonsense"},
			})
		})
	}
}

func newRuntime(t *testing.T, stores taskbridge.Stores, lifecycle taskbridge.TaskLifecycle, elsewhere bool) conformance.Runtime {
	t.Helper()
	signer, reports := newSigner(t), lifecycle
	if elsewhere {
		var err error
		reports, err = remote.NewLifecycle(remote.Options{URL: serveWorkers(t, lifecycle.(*taskbridge.LocalLifecycle), signer)})
		must(t, err)
	}
	c, err := client.NewLazyClient(clientOptions(testServer))
	must(t, err)
	t.Cleanup(c.Close)
	queue := newName()
	options := TypeOptions{TaskQueue: queue}
	executor, err := New(Options{
		Client: c, Lifecycle: lifecycle, Rows: stores.Tasks, Tokens: signer, Prefix: queue + "-", SweepInterval: time.Second,
		StartTimeout: 30 * time.Second, // on a machine that does much else
		Types:        map[string]TypeOptions{"echo": options, "fail": options, "wait": options},
	})
	must(t, err)
	t.Cleanup(func() { must(t, executor.Close()) })
	plugin, err := NewPlugin(PluginOptions{Lifecycle: reports, Prefix: queue + "-"})
	must(t, err)
	start := func() worker.Worker {
		w := worker.New(c, queue, worker.Options{Plugins: []worker.Plugin{plugin}})
		register(w)
		must(t, w.Start())
		return w
	}
	running := start()
	t.Cleanup(func() { running.Stop() })
	return conformance.Runtime{
		Executor: executor,
		Hold: func() (release func()) {
			running.Stop()
			return func() { running = start() }
		},
		Begun: begunHere,
	}
}
