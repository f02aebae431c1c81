//go:build linux

package asynqadapter

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// testRedis is the Redis of all tests but those that stop theirs. Tests keep
// apart by the names of their queues.
var testRedis asynq.RedisClientOpt

// TestMain runs the tests, or, as a process of its own, a worker.
func TestMain(m *testing.M) {
	// The parent's death is told to Redis by the thread that started it, so that
	// has to be one that lives as long as the process.
	runtime.LockOSThread()
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		if err := runWorker(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	status := runTests(m)
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

func runTests(m *testing.M) int {
	if uri := os.Getenv("TASKBRIDGE_TEST_REDIS"); uri != "" {
		option, err := asynq.ParseRedisURI(uri)
		simple, ok := option.(asynq.RedisClientOpt)
		if err != nil || !ok {
			fmt.Fprintf(os.Stderr, "TASKBRIDGE_TEST_REDIS must be like redis://localhost:6379/0: %v\n", err)
			return 2
		}
		testRedis = simple
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "asynq")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := startRedis(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer server.kill()
	testRedis = server.option()
	if err := os.Setenv("TASKBRIDGE_TEST_REDIS", "redis-socket://"+server.socket()); err != nil { // for the examples
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return m.Run()
}

// redisServer is a redis-server with a socket and its files in a folder.
type redisServer struct {
	dir     string
	args    []string
	command *exec.Cmd
}

// startRedis starts a redis-server; more arguments are its configuration.
func startRedis(dir string, args ...string) (*redisServer, error) {
	server := &redisServer{dir: dir, args: args}
	return server, server.start()
}

func (s *redisServer) socket() string { return filepath.Join(s.dir, "redis.sock") }

func (s *redisServer) option() asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Network: "unix", Addr: s.socket()}
}

// start starts it, again perhaps, and returns once it answers.
func (s *redisServer) start() error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("these tests need redis-server (Debian: apt-get install redis-server), or an address in TASKBRIDGE_TEST_REDIS: %w", err)
	}
	s.command = exec.Command(path, append([]string{
		"--port", "0", "--unixsocket", s.socket(), "--dir", s.dir, "--save", "", "--logfile", filepath.Join(s.dir, "redis.log"),
	}, s.args...)...)
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket(), MaxRetries: -1})
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if err = client.Ping(context.Background()).Err(); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			s.kill()
			log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			return fmt.Errorf("redis-server does not answer: %w\n%s", err, log)
		}
	}
}

// kill ends it as a power cut would.
func (s *redisServer) kill() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait() // it says how it was killed
}
