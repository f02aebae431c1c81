package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hibiken/asynq"
)

// redisServer is a Redis of this program's own, without persistence.
type redisServer struct {
	dir     string
	command *exec.Cmd
}

func startRedis(ctx context.Context) (*redisServer, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	s := &redisServer{dir: dir}
	s.command = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket(), "--dir", dir, "--save", "")
	if err := s.command.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("this needs redis-server (Debian: apt-get install redis-server): %w", err)
	}
	client := asynq.NewClient(s.option())
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; {
		if err = client.Ping(); err == nil {
			return s, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			s.stop()
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		}
		<-tick.C
	}
}

func (s *redisServer) socket() string { return filepath.Join(s.dir, "redis.sock") }

func (s *redisServer) option() asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Network: "unix", Addr: s.socket()}
}

func (s *redisServer) stop() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait() // it says how it was killed
	_ = os.RemoveAll(s.dir)
}
