package asynqadapter

import (
	"context"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// newClient connects as the option says, with contexts that bound the waiting for
// an answer: asynq's own clients look at a context only between their tries.
func newClient(option asynq.RedisConnOpt) (redis.UniversalClient, error) {
	switch o := option.(type) {
	case asynq.RedisClientOpt:
		return redis.NewClient(&redis.Options{
			Network: o.Network, Addr: o.Addr, Username: o.Username, Password: o.Password, DB: o.DB,
			DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
			PoolSize: o.PoolSize, TLSConfig: o.TLSConfig, ContextTimeoutEnabled: true,
		}), nil
	case asynq.RedisFailoverClientOpt:
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: o.MasterName, SentinelAddrs: o.SentinelAddrs,
			SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
			Username: o.Username, Password: o.Password, DB: o.DB,
			DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
			PoolSize: o.PoolSize, TLSConfig: o.TLSConfig, ContextTimeoutEnabled: true,
		}), nil
	case asynq.RedisClusterClientOpt:
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: o.Addrs, MaxRedirects: o.MaxRedirects, Username: o.Username, Password: o.Password,
			DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
			TLSConfig: o.TLSConfig, ContextTimeoutEnabled: true,
		}), nil
	}
	client, ok := option.MakeRedisClient().(redis.UniversalClient)
	if !ok {
		return nil, fmt.Errorf("Options.Redis of type %T makes no go-redis client", option)
	}
	return client, nil
}

// bound is a client whose calls are bounded by a context, for asynq.Inspector,
// which takes none. It covers the commands that the inspections here need.
type bound struct {
	redis.UniversalClient
	ctx context.Context
}

func inspectorFor(ctx context.Context, client redis.UniversalClient) *asynq.Inspector {
	return asynq.NewInspectorFromRedisClient(bound{client, ctx})
}

func (b bound) Eval(_ context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return b.UniversalClient.Eval(b.ctx, script, keys, args...)
}

func (b bound) EvalSha(_ context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return b.UniversalClient.EvalSha(b.ctx, sha, keys, args...)
}

// SIsMember says that asynq knows the queue, without asking. An asynq.Client tells
// Redis of a queue once in its life, so after Redis has lost its data asynq denies
// queues that have tasks in them.
func (b bound) SIsMember(context.Context, string, any) *redis.BoolCmd {
	return redis.NewBoolResult(true, nil)
}

func (b bound) SMembers(_ context.Context, key string) *redis.StringSliceCmd {
	return b.UniversalClient.SMembers(b.ctx, key)
}

func (b bound) Get(_ context.Context, key string) *redis.StringCmd {
	return b.UniversalClient.Get(b.ctx, key)
}

func (b bound) HVals(_ context.Context, key string) *redis.StringSliceCmd {
	return b.UniversalClient.HVals(b.ctx, key)
}
