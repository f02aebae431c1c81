package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

// workerAPI is "N": the task is started over the worker API with the token in the
// file, N steps of progress are reported, and it is completed with the input.
func workerAPI(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(os.Getenv("TASKBRIDGE_TOKEN_FILE"))
	if err != nil {
		return err
	}
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: os.Getenv("TASKBRIDGE_URL"), Synchronous: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	run, err := lifecycle.Start(ctx, os.Getenv("TASKBRIDGE_TASK_ID"), taskbridge.Claim{
		ID: os.Getenv("TASKBRIDGE_CLAIM"), Token: strings.TrimSpace(string(token)),
	})
	if err != nil {
		return err
	}
	for i := 1; i <= n && err == nil; i++ {
		err = run.Progress(ctx, taskbridge.Progress{Percent: float64(i) * 100 / float64(n), Message: strconv.Itoa(i)})
	}
	if err == nil {
		err = run.Complete(ctx, taskbridge.Completion{Result: run.Task().Input})
	}
	return err
}
