package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

var discard = slog.New(slog.DiscardHandler)

// touchEverything makes every metric have a sample.
func touchEverything(tel *telemetry.Telemetry) {
	for _, kind := range []taskbridge.OperationKind{
		taskbridge.OperationCreate, taskbridge.OperationSubmit, taskbridge.OperationCancel, taskbridge.OperationStart,
		taskbridge.OperationAppend, taskbridge.OperationEnd, taskbridge.OperationDeliver, taskbridge.OperationInspect,
	} {
		_, done := tel.Begin(telemetry.ByReconciler(context.Background()), taskbridge.Operation{Kind: kind, TaskType: "demo", Event: taskbridge.EventCompleted})
		done(nil)
	}
	tel.Open(telemetry.TransportSSE)()
	tel.Delivered(telemetry.TransportSSE, 1, 100)
	tel.SlowReaderCut(telemetry.TransportWebSocket)
	tel.AuthenticationFailed(telemetry.AuthJWT)
	tel.RateLimited(telemetry.LimitRate)
}

func TestNamesFollowTheConventions(t *testing.T) {
	tel := telemetry.New(telemetry.Options{
		TaskTypes:  []string{"demo"},
		Ready:      map[string]func(context.Context) error{"store": func(context.Context) error { return nil }},
		StoreFiles: map[string]string{"database": "does-not-exist"},
	})
	touchEverything(tel)
	problems, err := testutil.GatherAndLint(tel.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := tel.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, family := range families {
		switch name := family.GetName(); {
		case strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
		case !strings.HasPrefix(name, "taskbridge_"):
			t.Errorf("%s has no prefix of ours", name)
		default:
			own++
		}
	}
	if own < 15 {
		t.Errorf("only %d metrics of ours: the others were not checked", own)
	}
}

func TestNothingThatAClientChoosesIsALabel(t *testing.T) {
	const secret = "s3cret" // in everything that a client or the work can choose
	tel := telemetry.New(telemetry.Options{TaskTypes: []string{"demo"}})
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores, Observer: tel})
	if err != nil {
		t.Fatal(err)
	}
	executor, err := fakes.NewDeterministicFakeExecutor(fakes.Options{
		Lifecycle: lifecycle,
		Script:    fakes.Always(fakes.Script{Ticks: 3, Message: secret, Result: json.RawMessage(`"` + secret + `"`)}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := executor.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"demo": executor, secret + "-type": executor})
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors, Observer: tel})
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Subscription.Close()

	principal := taskbridge.Principal{Subject: secret + "-subject"}
	for _, taskType := range []string{"demo", secret + "-type"} {
		created, err := bridge.Creation.CreateTask(t.Context(), principal, taskbridge.CreateTaskRequest{
			ClientRequestID: secret + "-key-" + taskType, TaskType: taskType,
		})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := bridge.Subscription.Subscribe(t.Context(), principal, taskbridge.SubscribeRequest{TaskID: created.Task.ID})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = stream.Next(t.Context(), time.Minute); err != nil {
				break
			}
		}
		stream.Close()
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		shown := exposition(t, tel)
		for _, hidden := range []string{created.Task.ID, secret} {
			if strings.Contains(shown, hidden) {
				t.Errorf("%q is in the exposition:\n%s", hidden, shown)
			}
		}
	}
	expect(t, tel, 2, "taskbridge_operations_total", "kind", "create", "outcome", "ok")
	expect(t, tel, 2, "taskbridge_operations_total", "kind", "submit", "outcome", "ok")
	expect(t, tel, 2, "taskbridge_operation_duration_seconds", "kind", "end")
	expect(t, tel, 6, "taskbridge_events_appended_total", "type", "TASK_PROGRESS")
	expect(t, tel, 2, "taskbridge_events_appended_total", "type", "TASK_COMPLETED")
	expect(t, tel, 1, "taskbridge_tasks_ended_total", "status", "COMPLETED", "type", "demo")
	expect(t, tel, 1, "taskbridge_tasks_ended_total", "status", "COMPLETED", "type", "other")
}

func TestReadinessAndFileSizesAreThoseOfTheScrape(t *testing.T) {
	var broken error
	file := filepath.Join(t.TempDir(), "database")
	tel := telemetry.New(telemetry.Options{
		Ready: map[string]func(context.Context) error{
			"store": func(ctx context.Context) error {
				if _, bounded := ctx.Deadline(); !bounded {
					return errors.New("a check must be bounded")
				}
				return broken
			},
		},
		StoreFiles: map[string]string{"database": file},
	})
	expect(t, tel, 1, "taskbridge_ready", "part", "store")
	expect(t, tel, 0, "taskbridge_store_file_bytes", "file", "database")
	broken = errors.New("disk full")
	if err := os.WriteFile(file, make([]byte, 1234), 0o600); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(exposition(t, tel), `taskbridge_ready{part="store"} 0`) {
		t.Error("a store that cannot be used is not shown as such")
	}
	expect(t, tel, 1234, "taskbridge_store_file_bytes", "file", "database")
}

func TestTheBuildIsNamed(t *testing.T) {
	tel := telemetry.New(telemetry.Options{Version: "v1.2.3"})
	shown := exposition(t, tel)
	if !strings.Contains(shown, `revision="unknown",version="v1.2.3"} 1`) {
		t.Errorf("no build info in\n%s", shown)
	}
	for _, collector := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(shown, "\n"+collector+" ") {
			t.Errorf("no %s", collector)
		}
	}
}
