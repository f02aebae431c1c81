package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/server/internal/config"
)

func TestAnAddressOfRedisHasItsUserAndItsUsualPort(t *testing.T) {
	for address, want := range map[string]asynq.RedisConnOpt{
		"redis://tasks:p%40ss@redis.internal/3":   asynq.RedisClientOpt{Addr: "redis.internal:6379", Username: "tasks", Password: "p@ss", DB: 3},
		"redis://:pass@redis.internal:7000":       asynq.RedisClientOpt{Addr: "redis.internal:7000", Password: "pass"},
		"redis://[::1]/0":                         asynq.RedisClientOpt{Addr: "[::1]:6379"},
		"redis-socket://tasks:pass@/run/r.s?db=2": asynq.RedisClientOpt{Network: "unix", Addr: "/run/r.s", Username: "tasks", Password: "pass", DB: 2},
		"redis-sentinel://watch:over@a:1,b:2?master=m": asynq.RedisFailoverClientOpt{
			MasterName: "m", SentinelAddrs: []string{"a:1", "b:2"}, SentinelUsername: "watch", SentinelPassword: "over", Password: "redis's",
		},
	} {
		got, err := redisOf(&config.Asynq{URL: address, Password: "redis's"})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", address, err, diff)
		}
	}
	if _, err := redisOf(&config.Asynq{URL: "redis://:secret@a/first"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a database that is no number: %v", err)
	}
}

func TestARetentionThatIsTooShortIsToldWithItsLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "taskbridge.yaml")
	content := "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  first: {executor: x}\n  second:\n    executor: x\n    retention: 10m\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load([]string{"--config", path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := memory.NewStore(memory.Options{})
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newRuntimes(c, lifecycle, store, workerServer{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), `line 6: tasks: task type "second": Retention is 10m0s, but must be at least 30m0s`) {
		t.Errorf("%v", err)
	}
}
