package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	asynqadapter "github.com/taskbridge/taskbridge/adapters/asynq"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

// asynqRuntime is the adapter's executor, closed with the server's others.
type asynqRuntime struct{ *asynqadapter.Executor }

// Close closes the connections to Redis, which waits for nothing.
func (r asynqRuntime) Close(context.Context) error { return r.Executor.Close() }

var _ closer = asynqRuntime{}

// quietRedis drops what go-redis would write to standard error by itself, in no
// format of ours: each fault is an error of the call that met it, too.
type quietRedis struct{}

func (quietRedis) Printf(context.Context, string, ...any) {}

// go-redis has one logger for the whole process, and reads it unguarded.
var quietenRedis = sync.OnceFunc(func() { redis.SetLogger(quietRedis{}) })

func newAsynq(o runtimeOptions) (taskbridge.TaskExecutor, error) {
	quietenRedis()
	connection, err := redisOf(o.executor.Settings.(*config.Asynq))
	if err != nil {
		return nil, err
	}
	options := asynqadapter.Options{
		Redis: connection, Lifecycle: o.lifecycle, Types: map[string]asynqadapter.TypeOptions{},
		WorkerURL: o.worker.url, Tokens: o.worker.tokens, Submission: o.config.Submission, Logger: o.logger,
	}
	for _, taskType := range slices.Sorted(maps.Keys(o.tasks)) {
		task := o.tasks[taskType].(*config.AsynqTask)
		one := options
		one.Types = map[string]asynqadapter.TypeOptions{taskType: asynqType(task)}
		if err := one.Check(); err != nil {
			return nil, fmt.Errorf("line %d: tasks: %w", task.Line, err)
		}
		options.Types[taskType] = one.Types[taskType]
	}
	executor, err := asynqadapter.New(options)
	if err != nil {
		return nil, err
	}
	return asynqRuntime{executor}, nil
}

func asynqType(task *config.AsynqTask) asynqadapter.TypeOptions {
	options := asynqadapter.TypeOptions{Queue: task.Queue, Timeout: task.Timeout, Deadline: task.Deadline, Retention: task.Retention}
	if task.MaxRetry != nil {
		if options.MaxRetry = *task.MaxRetry; options.MaxRetry == 0 {
			options.MaxRetry = asynqadapter.NoRetry
		}
	}
	return options
}

// redisOf reads an address as asynq does, and what asynq passes over: the user,
// and that Redis has a usual port.
func redisOf(settings *config.Asynq) (asynq.RedisConnOpt, error) {
	option, err := asynq.ParseRedisURI(settings.URL)
	if err != nil {
		return nil, errors.New("url is no address of Redis that asynq takes") // the error may quote a password
	}
	u, err := url.Parse(settings.URL)
	if err != nil {
		return nil, errors.New("url is no address of Redis")
	}
	switch o := option.(type) {
	case asynq.RedisClientOpt:
		o.Username = u.User.Username()
		if o.Network != "unix" {
			o.Addr = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))
		}
		return o, nil
	case asynq.RedisFailoverClientOpt:
		o.SentinelUsername = u.User.Username()
		o.Password = settings.Password
		return o, nil
	}
	return option, nil
}
