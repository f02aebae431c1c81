package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http/httptest"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// job is what a runtime keeps of a task: the input stays with the server.
type job struct{ taskID, submissionToken string }

// jobs is an executor for a runtime of its own: a queue, whose other end may be
// on any machine.
type jobs struct {
	queue  chan job
	tokens taskbridge.SubmissionTokens
}

func (j *jobs) SubmitTask(_ context.Context, task taskbridge.Task) error {
	token, err := j.tokens.SubmissionToken(task.ID)
	if err == nil {
		j.queue <- job{task.ID, token}
	}
	return err
}

func (j *jobs) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

// work is the worker's side. All that it knows is the server's address and what
// is in the queue.
func work(ctx context.Context, url string, queue <-chan job) error {
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: url})
	if err != nil {
		return err
	}
	defer lifecycle.CloseIdleConnections()
	for j := range queue {
		run, err := lifecycle.Start(ctx, j.taskID, taskbridge.Claim{ID: "execution 1", Token: j.submissionToken})
		if err != nil {
			return err
		}
		var input struct{ Name string }
		err = json.Unmarshal(run.Task().Input, &input)
		for _, token := range []string{"Good ", "morning, ", input.Name, "."} {
			if err == nil {
				err = run.Token(ctx, token)
			}
		}
		if err == nil {
			err = run.(remote.Flusher).Flush(ctx) // recorded from here on
		}
		if err == nil {
			err = run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`"said"`)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A worker on another machine reports over HTTP what a local one would report to
// the stores.
func Example() {
	// The server.
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	local, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)
	service, err := taskbridge.NewWorkerService(local)
	check(err)
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{bytes.Repeat([]byte("k"), workerapi.MinKeyBytes)}})
	check(err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: local, Signer: signer})
	check(err)
	server := httptest.NewServer(handler)
	defer server.Close()
	executor := &jobs{make(chan job, 10), signer}
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"greet": executor})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors})
	check(err)
	defer bridge.Subscription.Close()

	// A client creates a task, and a worker does it.
	ctx, alice := context.Background(), taskbridge.Principal{Subject: "alice"}
	created, err := bridge.Creation.CreateTask(ctx, alice, taskbridge.CreateTaskRequest{
		ClientRequestID: "1", TaskType: "greet", Input: json.RawMessage(`{"name":"Alice"}`),
	})
	check(err)
	close(executor.queue)
	check(work(ctx, server.URL, executor.queue))

	page, err := bridge.Polling.PollEvents(ctx, alice, taskbridge.PollRequest{TaskID: created.Task.ID})
	check(err)
	text := ""
	for _, event := range page.Events {
		var message struct{ Message string }
		check(json.Unmarshal(event.Payload, &message))
		text += message.Message
	}
	fmt.Println(text)
	fmt.Println(page.Events[len(page.Events)-1].Type)
	// Output:
	// Good morning, Alice.
	// TASK_COMPLETED
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
