//go:build unix

package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"

	"github.com/taskbridge/taskbridge/adapters/process"
)

// A shell script as a task: it is created once, watched, and has a result.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()

	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)
	executor, err := process.New(process.Options{
		Lifecycle:  lifecycle,
		InstanceID: "example",
		StateDir:   dir,
		Commands: map[string]process.Command{
			"greet": {Path: "/bin/sh", Args: []string{"-c", `
				echo '::taskbridge {"progress":50,"stage":"thinking"}'
				echo 'this line is for nobody'
				printf '::taskbridge {"result":{"input":%s}}\n' "$TASKBRIDGE_INPUT"`}},
		},
	})
	check(err)
	check(executor.KillSurvivors(ctx)) // of an earlier run that was killed
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"greet": executor})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	check(err)

	alice := taskbridge.Principal{Subject: "alice"}
	created, err := bridge.Creation.CreateTask(ctx, alice, taskbridge.CreateTaskRequest{
		ClientRequestID: "request-1",
		TaskType:        "greet",
		Input:           json.RawMessage(`{"name": "Ann; rm -rf /"}`),
	})
	check(err)
	var cursor taskbridge.Cursor
	for ended := false; !ended; {
		page, err := bridge.Polling.PollEvents(ctx, alice, taskbridge.PollRequest{
			TaskID: created.Task.ID, After: cursor, Wait: 30 * time.Second,
		})
		check(err)
		for _, event := range page.Events {
			fmt.Println(event.Type, string(event.Payload))
			ended = event.Type.Terminal()
		}
		cursor = page.Next
	}
	check(executor.Close(ctx))
	bridge.Subscription.Close()

	// Output:
	// TASK_STARTED {}
	// TASK_PROGRESS {"progress":50,"stage":"thinking"}
	// TASK_COMPLETED {"result":{"input":{"name":"Ann; rm -rf /"}}}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
