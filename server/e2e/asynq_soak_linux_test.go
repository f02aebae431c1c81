//go:build soak

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	taskbridge "github.com/taskbridge/taskbridge/core"
	goclient "github.com/taskbridge/taskbridge/core/client"
)

// The size of the soak. asynq's own times are real here: what a killed worker had
// comes back after a minute or two. TASKBRIDGE_SOAK_TASKS makes it smaller.
const (
	asynqSoakTasks   = 10_000
	asynqSoakWorkers = 3
	asynqSoakClients = 16
	asynqSoakLimit   = 40 * time.Minute
	// One of the server and its workers is killed this often.
	asynqSoakPause = 4 * time.Second
)

// asynqSoak is the processes, and what their death does to none of the tasks.
type asynqSoak struct {
	t              *testing.T
	dir, socket    string
	address, queue string
	effects        string
	worker         string // the command
	redis          *exec.Cmd
	server         *server
	workers        [asynqSoakWorkers]*exec.Cmd
	ctx            context.Context
}

// startAsynqSoak starts one Redis, one server and the workers.
func startAsynqSoak(t *testing.T) *asynqSoak {
	t.Helper()
	dir := t.TempDir()
	s := &asynqSoak{
		t: t, dir: dir, socket: filepath.Join(dir, "redis.sock"), address: unusedAddress(t), queue: "soak",
		effects: filepath.Join(dir, "effects"), worker: filepath.Join(dir, "asynqeffects"),
	}
	build := exec.Command("go", "build", "-o", s.worker, "./asynqeffects")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	config := fmt.Sprintf("executors:\n  queue: {kind: asynq, url: %q}\ntasks:\n  effect: {executor: queue, queue: %q}\n", s.redisURL(), s.queue)
	if err := os.WriteFile(filepath.Join(dir, "taskbridge.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), asynqSoakLimit)
	t.Cleanup(cancel)
	s.ctx = ctx
	s.startRedis()
	s.startServer()
	for i := range s.workers {
		s.startWorker(i)
	}
	t.Cleanup(func() {
		for _, worker := range s.workers {
			killed(worker)
		}
		killed(s.redis)
	})
	return s
}

func (s *asynqSoak) redisURL() string { return "redis-socket://" + s.socket }

// startRedis starts the Redis that forgets nothing it was told.
func (s *asynqSoak) startRedis() {
	s.t.Helper()
	s.redis = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket, "--dir", s.dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always")
	if err := s.redis.Start(); err != nil {
		s.t.Fatalf("this test needs redis-server (Debian: apt-get install redis-server): %v", err)
	}
	client := asynq.NewClient(asynq.RedisClientOpt{Network: "unix", Addr: s.socket})
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for client.Ping() != nil {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.t.Fatal("redis-server does not answer")
		}
	}
}

func (s *asynqSoak) startServer() {
	s.t.Helper()
	s.server = launch(s.t, s.dir, "--config", "taskbridge.yaml", "--listen", s.address)
}

func (s *asynqSoak) startWorker(i int) {
	s.t.Helper()
	s.workers[i] = exec.Command(s.worker, "-redis", s.redisURL(), "-server", "http://"+s.address, "-queue", s.queue, "-effects", s.effects)
	if err := s.workers[i].Start(); err != nil {
		s.t.Fatal(err)
	}
}

// killed ends a process as a power cut would.
func killed(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait() // it says how it was killed
}

// disturb kills one of the four every few seconds, and Redis twice, and starts
// what it has killed again, until done is closed.
func (s *asynqSoak) disturb(done <-chan struct{}) {
	s.t.Helper()
	tick := time.NewTicker(asynqSoakPause)
	defer tick.Stop()
	servers, workers, redis := 0, 0, 0
	for n := 1; ; n++ {
		select {
		case <-done:
			s.t.Logf("the server was killed %d times, workers %d times, Redis %d times", servers, workers, redis)
			return
		case <-tick.C:
		}
		if n == 5 || n == 12 {
			redis++
			killed(s.redis)
			s.startRedis()
		}
		if i := rand.IntN(asynqSoakWorkers + 1); i < asynqSoakWorkers {
			workers++
			killed(s.workers[i])
			s.startWorker(i)
			continue
		}
		servers++
		s.server.kill()
		s.startServer()
	}
}

// witnessed is a task as a client that followed it from its creation saw it.
type witnessed struct {
	id      string
	events  []goclient.Event
	outcome string // of the attempt that it completed with
}

// create makes the tasks of one client, over about two minutes, and follows each.
func (s *asynqSoak) create(c *goclient.Client, tasks []witnessed, first int) {
	var following sync.WaitGroup
	defer following.Wait()
	pace := time.NewTicker(max(2*time.Minute/time.Duration(max(len(tasks)/asynqSoakClients, 1)), time.Millisecond))
	defer pace.Stop()
	for i := first; i < len(tasks); i += asynqSoakClients {
		select {
		case <-pace.C:
		case <-s.ctx.Done():
			return
		}
		created, err := c.Create(s.ctx, goclient.CreateRequest{
			ClientRequestID: strconv.Itoa(i), TaskType: "effect", Input: map[string]int{"millis": rand.IntN(200)},
		})
		if err != nil {
			s.t.Errorf("create task %d: %v", i, err)
			return
		}
		tasks[i].id = created.TaskID
		following.Go(func() { s.follow(c, &tasks[i]) })
	}
}

// follow reads a task's stream to its end.
func (s *asynqSoak) follow(c *goclient.Client, w *witnessed) {
	for event, err := range c.Follow(s.ctx, w.id, goclient.FollowOptions{}) {
		if err != nil {
			s.t.Errorf("follow task %s: %v", w.id, err)
			return
		}
		w.events = append(w.events, event)
	}
}

func TestSoakEveryTaskInAQueueEndsOnceThoughServerWorkersAndRedisDie(t *testing.T) {
	n := asynqSoakTasks
	if text := os.Getenv("TASKBRIDGE_SOAK_TASKS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("TASKBRIDGE_SOAK_TASKS must be a number of tasks, not %q", text)
		}
	}
	s := startAsynqSoak(t)
	tasks := make([]witnessed, n)
	var clients sync.WaitGroup
	for first := range asynqSoakClients {
		c, err := goclient.New(goclient.Options{
			URL: "http://" + s.address, Retry: goclient.Retry{MinDelay: 20 * time.Millisecond, MaxDelay: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() { s.create(c, tasks, first) })
	}
	done := make(chan struct{})
	go func() {
		clients.Wait()
		close(done)
	}()
	s.disturb(done)
	rows := newClient(t)
	for i := range tasks {
		s.checkStream(rows, &tasks[i])
	}
	s.checkEffects(tasks)
	if status := s.server.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// checkStream checks that a task has started once and ended once, as its client
// and its row tell alike.
func (s *asynqSoak) checkStream(rows *client, w *witnessed) {
	s.t.Helper()
	var types []taskbridge.EventType
	starts, ends := 0, 0
	for i, event := range w.events {
		types = append(types, event.Type)
		if event.Type == taskbridge.EventStarted {
			starts++
		}
		if event.Type.Terminal() {
			ends++
		}
		if i > 0 && event.ID == w.events[i-1].ID {
			s.t.Errorf("task %s: the event %s came twice", w.id, event.ID)
		}
	}
	if starts != 1 || ends != 1 || types[len(types)-1] != taskbridge.EventCompleted {
		s.t.Errorf("task %s has the events %v", w.id, types)
		return
	}
	var payload struct{ Result json.RawMessage }
	if err := json.Unmarshal(w.events[len(w.events)-1].Payload, &payload); err != nil {
		s.t.Errorf("task %s: %v", w.id, err)
	}
	w.outcome = string(payload.Result)
	stored, err := rows.task(s.server.url, w.id)
	if err != nil || stored.Status != string(taskbridge.StatusCompleted) || string(stored.Result) != w.outcome {
		s.t.Errorf("task %s: its stream ends with the result %s, its row is %+v, %v", w.id, w.outcome, stored, err)
	}
}

// checkEffects checks that no attempt had its effect twice, that each task has that
// of the attempt that it completed with, and that there are no others' effects.
func (s *asynqSoak) checkEffects(tasks []witnessed) {
	s.t.Helper()
	file, err := os.Open(s.effects)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read from
	effects, total := map[string]int{}, 0
	lines := bufio.NewScanner(file)
	for ; lines.Scan(); total++ {
		effects[lines.Text()]++
	}
	if err := lines.Err(); err != nil {
		s.t.Fatal(err)
	}
	for attempt, n := range effects {
		if n != 1 {
			s.t.Errorf("attempt %q had its effect %d times", attempt, n)
		}
	}
	again := 0
	for _, w := range tasks {
		if effects[w.id+" "+w.outcome] != 1 {
			s.t.Errorf("task %s completed with the result of attempt %s, which has had no effect", w.id, w.outcome)
		}
		if w.outcome != "1" {
			again++
		}
	}
	s.t.Logf("%d tasks, %d of them in more than one attempt, %d effects", len(tasks), again, total)
}
