package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/client"
)

// A task is created, once, and followed to its end, through whatever happens to
// the connection or the server meanwhile.
func ExampleClient_Do() {
	server := exampleServer() // in earnest it is "taskbridge serve"
	defer server.Close()
	ctx := context.Background()

	c, err := client.New(client.Options{URL: server.URL, Token: "tb_example"})
	check(err)
	outcome, err := c.Do(ctx, client.CreateRequest{TaskType: "demo", Input: map[string]any{"ticks": 2}}, func(e client.Event) {
		fmt.Println(e.Type, string(e.Payload))
	})
	check(err)
	fmt.Println("result:", string(outcome.Result))
	// Output:
	// TASK_STARTED {}
	// TASK_PROGRESS {"progress":50}
	// TASK_COMPLETED {"result":"done"}
	// result: "done"
}

// A program that keeps the key of its task and the id of the last event that it
// has dealt with goes on where it was, also after it was itself restarted.
func ExampleClient_Follow() {
	server := exampleServer()
	defer server.Close()
	ctx := context.Background()
	c, err := client.New(client.Options{URL: server.URL, Token: "tb_example"})
	check(err)

	cursor := "" // kept in a file, in earnest
	for range 2 {
		created, err := c.Create(ctx, client.CreateRequest{ClientRequestID: "report-2026-11", TaskType: "demo"})
		check(err)
		for event, err := range c.Follow(ctx, created.TaskID, client.FollowOptions{After: cursor}) {
			if errors.Is(err, taskbridge.ErrEventGap) {
				log.Fatal("the stream has changed underneath: start over without a cursor")
			}
			check(err)
			fmt.Println(event.Type)
			cursor = event.ID
			if event.Type == taskbridge.EventProgress {
				fmt.Println("(the program is restarted)")
				break
			}
		}
	}
	// Output:
	// TASK_STARTED
	// TASK_PROGRESS
	// (the program is restarted)
	// TASK_COMPLETED
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
