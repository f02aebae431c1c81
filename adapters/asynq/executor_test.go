//go:build linux

package asynqadapter

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestOptionsThatCannotWorkAreToldInASentence(t *testing.T) {
	t.Parallel()
	lifecycle := unsettled{}
	types := func(o TypeOptions) map[string]TypeOptions { return map[string]TypeOptions{"thumbs": o} }
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"no Redis":      {Options{Lifecycle: lifecycle, Types: types(TypeOptions{})}, "Options.Redis must not be nil"},
		"no lifecycle":  {Options{Redis: testRedis, Types: types(TypeOptions{})}, "Options.Lifecycle must not be nil"},
		"no types":      {Options{Redis: testRedis, Lifecycle: lifecycle}, "Options.Types must name a task type"},
		"a blank type":  {Options{Redis: testRedis, Lifecycle: lifecycle, Types: map[string]TypeOptions{" ": {}}}, "a task type must not be blank"},
		"a blank queue": {Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{Queue: " "})}, `task type "thumbs": Queue must not be blank`},
		"half a second": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{Timeout: 1500 * time.Millisecond})},
			`task type "thumbs": Timeout is 1.5s, but must be whole seconds, at least one`,
		},
		"a short deadline": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{Deadline: time.Millisecond})},
			`task type "thumbs": Deadline is 1ms, but must be at least 1s`,
		},
		"negative retries": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{MaxRetry: -2})},
			`task type "thumbs": MaxRetry is -2, but must not be negative (NoRetry is -1)`,
		},
		"a negative window": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{}), IdempotencyWindow: -1},
			"Options.IdempotencyWindow and Options.Submission must not be negative",
		},
		"retention that ends before the last submission": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{Retention: 20 * time.Minute})},
			`task type "thumbs": Retention is 20m0s, but must be at least 30m0s, which is the submission deadline of 15m0s and the limit of 15m0s ` +
				`for an unknown outcome: asynq has to recognise the task's id for as long as it may be submitted again`,
		},
		"retention that ends before the idempotency window": {
			Options{Redis: testRedis, Lifecycle: lifecycle, Types: types(TypeOptions{Retention: time.Hour}), IdempotencyWindow: 24 * time.Hour},
			`task type "thumbs": Retention is 1h0m0s, but must be at least 24h0m0s, which is the idempotency window: ` +
				`asynq has to recognise the task's id for as long as it may be submitted again`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := c.options.Check(); err == nil || err.Error() != c.want {
				t.Errorf("Check says %v, want %s", err, c.want)
			}
			if _, err := New(c.options); err == nil || err.Error() != "asynq: "+c.want {
				t.Errorf("New says %v", err)
			}
		})
	}
	if _, err := NewWorker(WorkerOptions{}); err == nil {
		t.Error("a worker without a lifecycle is made")
	}
	if _, err := NewWorker(WorkerOptions{Lifecycle: lifecycle, Patience: -1}); err == nil {
		t.Error("a worker with negative patience is made")
	}
}

func TestAsynqGetsTheOptionsOfTheType(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{
		types: map[string]TypeOptions{
			"set":  {Timeout: 90 * time.Second, Deadline: time.Hour, MaxRetry: 7, Retention: 3 * time.Hour},
			"none": {MaxRetry: NoRetry},
			"all":  {},
		},
		change: func(o *Options) {
			o.Submission = taskbridge.SubmissionOptions{Deadline: time.Hour, UnknownLimit: time.Hour}
		},
	})
	for name, want := range map[string]TypeOptions{
		"set":  {Timeout: 90 * time.Second, Deadline: time.Hour, MaxRetry: 7, Retention: 3 * time.Hour},
		"none": {Timeout: 30 * time.Minute, Retention: 2 * time.Hour},
		"all":  {Timeout: 30 * time.Minute, MaxRetry: 25, Retention: 2 * time.Hour},
	} {
		task := f.create(name, `{}`)
		info, err := f.inspector.GetTaskInfo(f.queue, task.ID)
		must(t, err)
		got := TypeOptions{Timeout: info.Timeout, MaxRetry: info.MaxRetry, Retention: info.Retention}
		if !info.Deadline.IsZero() {
			got.Deadline = info.Deadline.Sub(task.CreatedAt.Truncate(time.Second))
		}
		if got != want || info.Type != name {
			t.Errorf("%s: asynq has %+v of type %s, want %+v", name, got, info.Type, want)
		}
	}
}

func TestACallEndsWithItsContextThoughRedisSaysNothing(t *testing.T) {
	t.Parallel()
	between := newProxy(t)
	f := newFixture(t, fixtureOptions{connection: between.option()})
	task := f.create("work", `{}`)
	between.hold()
	// Without the context Redis is waited for three seconds, and that four times.
	begin := time.Now()
	for name, call := range map[string]func(context.Context) error{
		"SubmitTask":          func(ctx context.Context) error { return f.executor.SubmitTask(ctx, task) },
		"RequestCancellation": func(ctx context.Context) error { return f.executor.RequestCancellation(ctx, task, "") },
		"CheckHealth":         f.executor.CheckHealth,
		"InspectTask": func(ctx context.Context) error {
			_, err := f.executor.InspectTask(ctx, task)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
		if err := call(ctx); err == nil || ctx.Err() == nil {
			t.Errorf("%s says %v", name, err)
		}
		cancel()
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the calls took %v", took)
	}
	between.release()
}

func TestHealthIsWhetherRedisAnswers(t *testing.T) {
	t.Parallel()
	between := newProxy(t)
	f := newFixture(t, fixtureOptions{connection: between.option()})
	must(t, f.executor.CheckHealth(f.ctx))
	between.vanish()
	if err := f.executor.CheckHealth(f.ctx); err == nil || !strings.HasPrefix(err.Error(), "asynq: Redis does not answer: ") {
		t.Errorf("it says %v without Redis", err)
	}
	between.comeBack()
	f.until("it is healthy again", func() bool { return f.executor.CheckHealth(f.ctx) == nil })
}

func TestATaskCreatedWhileRedisIsAwayRunsOnceItIsBack(t *testing.T) {
	t.Parallel()
	between := newProxy(t)
	f := newFixture(t, fixtureOptions{connection: between.option()})
	f.reconcile()
	between.vanish()
	task := f.create("work", `{}`)
	between.comeBack()
	serve(t, testRedis, f.queue, f.worker(done))
	f.wantEnd(task, "", false)
	f.wantStream(task, "STARTED COMPLETED")
}

func TestEveryKindOfConnectionMakesAClient(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]asynq.RedisConnOpt{
		"simple": testRedis, "own": ownConnection{testRedis},
		"failover": asynq.RedisFailoverClientOpt{MasterName: "m", SentinelAddrs: []string{"127.0.0.1:1"}},
		"cluster":  asynq.RedisClusterClientOpt{Addrs: []string{"127.0.0.1:1"}},
	} {
		client, err := newClient(option)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		must(t, client.Close())
	}
	if _, err := newClient(ownConnection{}); err == nil {
		t.Error("a connection that makes no client is taken")
	}
}

// ownConnection is a host's own way to a client.
type ownConnection struct{ asynq.RedisConnOpt }

func (o ownConnection) MakeRedisClient() any {
	if o.RedisConnOpt == nil {
		return "no client"
	}
	return o.RedisConnOpt.MakeRedisClient()
}
