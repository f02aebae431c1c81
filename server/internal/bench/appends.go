package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func prepareAppends(_ context.Context, o Options, _ string) (measured, ceiling sampler, err error) {
	return &appends{o}, &insertLoop{o}, nil
}

// appends measures progress reports: each caller has a run of its own.
type appends struct{ opts Options }

func (a *appends) close() error { return nil }

func (a *appends) sample(ctx context.Context, dir string) (rate float64, err error) {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: stores,
		Limits: taskbridge.Limits{StreamEvents: 1 << 27}, // a sample may be long
	})
	if err != nil {
		return 0, err
	}
	var runs []taskbridge.Run
	defer func() {
		for _, run := range runs {
			err = errors.Join(err, run.Close())
		}
	}()
	return rateOf(ctx, a.opts, func(ctx context.Context, i int) (func() error, error) {
		run, err := startRun(ctx, store, lifecycle, fmt.Sprintf("append-%d", i))
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
		return func() error { return run.Progress(ctx, progress) }, nil
	})
}

// startRun makes a task and starts it.
func startRun(ctx context.Context, store *sqlitestore.Store, lifecycle taskbridge.TaskLifecycle, key string) (taskbridge.Run, error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	task, _, err := store.CreateTask(ctx, taskbridge.Task{
		ID: taskbridge.NewTaskID("bench", key), Owner: "bench", ClientRequestID: key, Fingerprint: "bench", Type: "bench",
		Input: []byte(`{}`), Metadata: []byte(`{}`), CreatedAt: now, UpdatedAt: now, Status: taskbridge.StatusAccepted,
	})
	if err != nil {
		return nil, err
	}
	return lifecycle.Start(ctx, task.ID, taskbridge.Claim{ID: key})
}
