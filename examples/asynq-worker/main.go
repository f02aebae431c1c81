// Command asynq-worker is a worker of its own: an asynq server that computes the
// SHA-256 of every file of a folder, with progress, for tasks that come through
// TaskBridge. It knows Redis and the server's address; what lets it report on a
// task comes with the task.
//
//	go run ./examples/asynq-worker -root /usr/share &
//	go run ./examples/asynq-worker/host doc
//
// The task type is "checksums", its input {"dir": "doc"}: a folder below -root.
// Its result is {"files", "bytes", "sha256"}, the last being the SHA-256 of the
// list of all files by path, with a line for each as sha256sum prints it.
//
// SIGTERM has the worker finish what it can within eight seconds and give the
// rest back: another worker goes on with it.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/hibiken/asynq"

	"github.com/taskbridge/taskbridge/core/remote"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
)

// settings are the command's flags.
type settings struct {
	redis, server, queue, root string
	concurrency                int
}

func main() {
	var s settings
	flag.StringVar(&s.redis, "redis", "redis://127.0.0.1:6379/0", "where asynq keeps its queues")
	flag.StringVar(&s.server, "server", "http://127.0.0.1:8082", "the TaskBridge server, without a path")
	flag.StringVar(&s.queue, "queue", "default", "asynq's queue")
	flag.StringVar(&s.root, "root", ".", "the folder below which tasks may read")
	flag.IntVar(&s.concurrency, "concurrency", 4, "how many tasks run at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

// run works until ctx ends.
func run(ctx context.Context, s settings) error {
	connection, err := asynq.ParseRedisURI(s.redis)
	if err != nil {
		return errors.New("-redis must be like redis://127.0.0.1:6379/0") // err may quote a password
	}
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: s.server})
	if err != nil {
		return err
	}
	worker, err := asynqadapter.NewWorker(asynqadapter.WorkerOptions{Lifecycle: lifecycle, Logger: slog.Default()})
	if err != nil {
		return err
	}
	mux := asynq.NewServeMux()
	mux.Handle("checksums", worker.Handle(checksums{root.FS()}.handle))

	server := asynq.NewServer(connection, asynq.Config{
		Concurrency: s.concurrency,
		Queues:      map[string]int{s.queue: 1},
		LogLevel:    asynq.WarnLevel,
	})
	if err := server.Start(mux); err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown()
	return nil
}
