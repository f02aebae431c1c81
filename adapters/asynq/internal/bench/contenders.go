package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
)

// input is that of every task.
var input = json.RawMessage(`{"dir":"/usr/share/doc","filesPerSecond":500}`)

func newServer(connection asynq.RedisConnOpt, queue string, handler asynq.Handler) (*asynq.Server, error) {
	server := asynq.NewServer(connection, asynq.Config{
		Concurrency: callers, Queues: map[string]int{queue: 1}, TaskCheckInterval: 10 * time.Millisecond,
		ShutdownTimeout: time.Second, LogLevel: asynq.FatalLevel,
	})
	return server, server.Start(handler)
}

// bare is asynq by itself: enqueued, run, forgotten.
type bare struct {
	*counter
	client *asynq.Client
	server *asynq.Server
}

func newBare(_ context.Context, redis *redisServer) (contender, error) {
	b := &bare{counter: newCounter(), client: asynq.NewClient(redis.option())}
	var err error
	b.server, err = newServer(redis.option(), "bare", asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		b.begin()
		b.end()
		return nil
	}))
	return b, err
}

func (b *bare) name() string { return "bare asynq" }

func (b *bare) create(ctx context.Context) error {
	_, err := b.client.EnqueueContext(ctx, asynq.NewTask("bench", input), asynq.Queue("bare"))
	return err
}

func (b *bare) close() {
	b.server.Shutdown()
	_ = b.client.Close()
}

// bridged is asynq behind TaskBridge.
type bridged struct {
	*counter
	title    string
	bridge   *taskbridge.Bridge
	executor *asynqadapter.Executor
	server   *asynq.Server
	keys     atomic.Int64
	closers  []func()
}

var owner = taskbridge.Principal{Subject: "bench"}

// ends is a store that tells of the ends of tasks.
type ends struct {
	*memory.Store
	counter *counter
}

func (e ends) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	row, err := e.Store.UpdateTaskAndAppend(ctx, next, events)
	if err == nil && next.Status.Terminal() {
		e.counter.end()
	}
	return row, err
}

func newLocal(_ context.Context, redis *redisServer) (contender, error) {
	return newBridged(redis, "local", func(_ *bridged, lifecycle *taskbridge.LocalLifecycle) (taskbridge.TaskLifecycle, taskbridge.SubmissionTokens, error) {
		return lifecycle, nil, nil
	})
}

func newRemote(_ context.Context, redis *redisServer) (contender, error) {
	return newBridged(redis, "remote", serveWorkers)
}

// serveWorkers serves the worker API on loopback and returns a lifecycle over it.
func serveWorkers(b *bridged, lifecycle *taskbridge.LocalLifecycle) (taskbridge.TaskLifecycle, taskbridge.SubmissionTokens, error) {
	service, err := taskbridge.NewWorkerService(lifecycle)
	if err != nil {
		return nil, nil, err
	}
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{[]byte(rand.Text() + rand.Text())}})
	if err != nil {
		return nil, nil, err
	}
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	if err != nil {
		return nil, nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // until it is closed
	b.closers = append(b.closers, func() {
		_ = server.Close()
		serving.Wait()
	})
	reports, err := remote.NewLifecycle(remote.Options{URL: "http://" + listener.Addr().String()})
	return reports, signer, err
}

func newBridged(
	redis *redisServer, title string,
	over func(*bridged, *taskbridge.LocalLifecycle) (taskbridge.TaskLifecycle, taskbridge.SubmissionTokens, error),
) (contender, error) {
	b := &bridged{counter: newCounter(), title: title}
	store := ends{memory.NewStore(memory.Options{}), b.counter}
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	if err != nil {
		return nil, err
	}
	reports, tokens, err := over(b, lifecycle)
	if err != nil {
		return nil, err
	}
	b.executor, err = asynqadapter.New(asynqadapter.Options{
		Redis: redis.option(), Lifecycle: lifecycle, Tokens: tokens,
		Types: map[string]asynqadapter.TypeOptions{"bench": {Queue: title}},
	})
	if err != nil {
		return nil, err
	}
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"bench": b.executor})
	if err != nil {
		return nil, err
	}
	if b.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: router}); err != nil {
		return nil, err
	}
	b.server, err = newServer(redis.option(), title, asynqadapter.Handle(reports,
		func(context.Context, taskbridge.Task, taskbridge.Run) (any, error) {
			b.begin()
			return nil, nil
		}))
	return b, err
}

func (b *bridged) name() string { return "TaskBridge, " + b.title }

func (b *bridged) create(ctx context.Context) error {
	result, err := b.bridge.Creation.CreateTask(ctx, owner, taskbridge.CreateTaskRequest{
		ClientRequestID: strconv.FormatInt(b.keys.Add(1), 10), TaskType: "bench", Input: input,
	})
	if err == nil && result.Deduplicated {
		err = errors.New("the task was there already")
	}
	return err
}

func (b *bridged) close() {
	b.server.Shutdown()
	for _, c := range b.closers {
		c()
	}
	b.bridge.Subscription.Close()
	_ = b.executor.Close()
}
