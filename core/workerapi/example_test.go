package workerapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// queue is an executor that hands tasks to workers elsewhere: with each goes a
// token that lets its worker start it.
type queue struct {
	tokens taskbridge.SubmissionTokens
	jobs   chan job
}

type job struct{ taskID, token string }

func (q queue) SubmitTask(_ context.Context, task taskbridge.Task) error {
	token, err := q.tokens.SubmissionToken(task.ID)
	if err == nil {
		q.jobs <- job{task.ID, token}
	}
	return err
}

func (queue) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

// An application serves the worker API beside its own routes. The worker needs
// nothing but HTTP and JSON.
func ExampleNewHandler() {
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)
	service, err := taskbridge.NewWorkerService(lifecycle)
	check(err)
	key := make([]byte, workerapi.MinKeyBytes) // an application keeps it
	_, err = rand.Read(key)
	check(err)
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{key}})
	check(err)
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	check(err)

	mux := http.NewServeMux()
	mux.Handle(workerapi.BasePath, handler)
	server := httptest.NewServer(mux)
	defer server.Close()

	jobs := queue{tokens: signer, jobs: make(chan job, 1)}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"greet": jobs})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router})
	check(err)
	_, err = bridge.Creation.CreateTask(context.Background(), taskbridge.Principal{Subject: "ann"}, taskbridge.CreateTaskRequest{
		ClientRequestID: "1", TaskType: "greet", Input: json.RawMessage(`{"name":"Ann"}`),
	})
	check(err)

	// The worker, on another machine.
	j := <-jobs.jobs
	base := server.URL + workerapi.BasePath + j.taskID
	started := post(base+"/start", j.token, `{"claim":"pod-7f3a"}`)
	fmt.Println(started["status"], started["task"].(map[string]any)["input"])
	ended := post(base+"/reports", started["token"].(string), `{"firstOrdinal": 1, "reports": [
		{"type": "progress", "progress": 50},
		{"type": "token", "text": "Hello, "},
		{"type": "token", "text": "Ann"},
		{"type": "complete", "result": "greeted"}]}`)
	fmt.Println(ended["status"])

	events, err := store.ReadEvents(context.Background(), j.taskID, 0, 10)
	check(err)
	for _, e := range events {
		fmt.Println(e.Type, string(e.Payload))
	}
	// Output:
	// RUNNING map[name:Ann]
	// COMPLETED
	// TASK_STARTED {}
	// TASK_PROGRESS {"progress":50}
	// TASK_MESSAGE {"message":"Hello, Ann"}
	// TASK_COMPLETED {"result":"greeted"}
}

func post(url, token, body string) (answer map[string]any) {
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewBufferString(body))
	check(err)
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer response.Body.Close()
	check(json.NewDecoder(response.Body).Decode(&answer))
	return answer
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
