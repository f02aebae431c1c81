// Command asynqeffects is a worker for tests: an asynq server whose handlers take
// as long as their task's input says and then leave a line in a file, which is
// their effect in the world, so that it can be counted.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hibiken/asynq"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/remote"
)

func main() {
	redis := flag.String("redis", "", "where asynq keeps its queues")
	server := flag.String("server", "", "the TaskBridge server, without a path")
	queue := flag.String("queue", "default", "asynq's queue")
	effects := flag.String("effects", "", "the file that gets a line for each attempt that has finished: the task's id and the attempt")
	flag.Parse()
	if err := run(*redis, *server, *queue, *effects); err != nil {
		slog.Error("worker ends", "error", err)
		os.Exit(1)
	}
}

// run works until SIGTERM.
func run(redis, serverURL, queue, effects string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	connection, err := asynq.ParseRedisURI(redis)
	if err != nil {
		return err
	}
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: serverURL})
	if err != nil {
		return err
	}
	worker, err := asynqadapter.NewWorker(asynqadapter.WorkerOptions{Lifecycle: lifecycle, Logger: slog.Default()})
	if err != nil {
		return err
	}
	// A line is one write to the end of the file, from however many processes.
	file, err := os.OpenFile(effects, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // each write has told of its error
	mux := asynq.NewServeMux()
	mux.Handle("effect", worker.Handle(effect{file}.handle))
	asynqServer := asynq.NewServer(connection, asynq.Config{
		Concurrency: 8, Queues: map[string]int{queue: 1}, LogLevel: asynq.WarnLevel, TaskCheckInterval: 100 * time.Millisecond,
	})
	if err := asynqServer.Start(mux); err != nil {
		return err
	}
	<-ctx.Done()
	asynqServer.Shutdown()
	return nil
}

// effect is work that leaves a line in a file.
type effect struct{ file *os.File }

// handle returns the number of the attempt that had the effect.
func (e effect) handle(ctx context.Context, task taskbridge.Task, run taskbridge.Run) (any, error) {
	var input struct{ Millis int }
	if err := json.Unmarshal(task.Input, &input); err != nil {
		return nil, err
	}
	if err := run.Progress(ctx, taskbridge.Progress{Percent: 50}); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Duration(input.Millis) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		_, err := fmt.Fprintf(e.file, "%s %d\n", task.ID, run.Attempt())
		return run.Attempt(), err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
