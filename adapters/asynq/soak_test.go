//go:build soak && linux

package asynqadapter

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// soakTasks is how many tasks the test has. asynq's own times are real here: what
// a killed worker had comes back after a minute or two.
const (
	soakTasks   = 10_000
	soakWorkers = 3
	soakLimit   = 30 * time.Minute
)

// outages makes the server unreachable now and then, which is what its restart is
// to a worker.
type outages struct{ away atomic.Bool }

func (o *outages) between(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.away.Load() {
			panic(http.ErrAbortHandler) // without an answer
		}
		next.ServeHTTP(w, r)
	})
}

func TestSoakEveryTaskEndsOnceThoughWorkersAndRedisDie(t *testing.T) {
	server, err := startRedis(t.TempDir(), "--appendonly", "yes", "--appendfsync", "always")
	must(t, err)
	t.Cleanup(func() { server.kill() })
	connection := server.option()
	outage := &outages{}
	f := newProcessFixture(t, fixtureOptions{
		connection: &connection, submission: &taskbridge.SubmissionOptions{}, limit: soakLimit, between: outage.between,
		types: map[string]TypeOptions{"work": {}},
	})
	f.reconcile()

	finished := make(chan bool)
	var disturbing sync.WaitGroup
	disturbing.Go(func() { f.disturb(server, outage, finished) })
	tasks := f.createMany(soakTasks)
	for _, task := range tasks {
		f.soakEnd(task)
	}
	close(finished)
	disturbing.Wait()
	f.checkEffects(tasks)
}

// disturb keeps workers going and something dying until finished is closed.
func (f *processFixture) disturb(server *redisServer, outage *outages, finished chan bool) {
	var workers [soakWorkers]*worker
	start := func(i int) {
		workers[i] = f.work(func(s *workerSetup) { s.Silent, s.Concurrency = true, 8 })
	}
	for i := range workers {
		start(i)
	}
	tick := time.NewTicker(4 * time.Second)
	defer tick.Stop()
	kills, restarts, absences := 0, 0, 0
	for n := 1; ; n++ {
		select {
		case <-finished:
			f.t.Logf("%d workers killed, Redis restarted %d times, the server away %d times", kills, restarts, absences)
			return
		case <-tick.C:
		}
		switch {
		case n == 8 || n == 20:
			restarts++
			server.kill()
			must(f.t, server.start())
		case n%4 == 0:
			absences++
			outage.away.Store(true)
			timer := time.NewTimer(2 * time.Second)
			<-timer.C
			outage.away.Store(false)
		default:
			kills++
			i := rand.IntN(soakWorkers)
			workers[i].kill()
			start(i)
		}
	}
}

// createMany creates tasks over about two minutes.
func (f *processFixture) createMany(n int) []taskbridge.Task {
	const callers = 16
	tasks := make([]taskbridge.Task, n)
	var creating sync.WaitGroup
	for c := range callers {
		creating.Go(func() {
			pace := time.NewTicker(2 * time.Minute / time.Duration(n/callers))
			defer pace.Stop()
			for i := c; i < n; i += callers {
				<-pace.C
				result, err := f.bridge.Creation.CreateTask(f.ctx, owner, taskbridge.CreateTaskRequest{
					ClientRequestID: strconv.Itoa(i), TaskType: "work",
					Input: json.RawMessage(fmt.Sprintf(`{"millis":%d}`, rand.IntN(200))),
				})
				if err != nil {
					f.t.Errorf("create task %d: %v", i, err)
					return
				}
				tasks[i] = result.Task
			}
		})
	}
	creating.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
	return tasks
}

// soakEnd waits for a task's end and checks that its stream has one, and one start.
func (f *processFixture) soakEnd(task taskbridge.Task) {
	f.t.Helper()
	row := f.row(task)
	for !row.Status.Terminal() && f.ctx.Err() == nil {
		var err error
		row, err = f.bridge.Query.GetTask(f.ctx, owner, task.ID, 30*time.Second)
		must(f.t, err)
	}
	if row.Status != taskbridge.StatusCompleted {
		f.t.Errorf("task %s is %s %s: %q", task.ID, row.Status, row.Terminal, f.stream(task))
		return
	}
	events, err := f.store.ReadEvents(f.ctx, task.ID, 0, 1000)
	must(f.t, err)
	starts, ends := 0, 0
	for _, event := range events {
		if event.Type == taskbridge.EventStarted {
			starts++
		}
		if event.Type.Terminal() {
			ends++
		}
	}
	if starts != 1 || ends != 1 || !events[len(events)-1].Type.Terminal() {
		f.t.Errorf("task %s has the stream %q", task.ID, f.stream(task))
	}
}

// checkEffects checks that no attempt had its effect twice, and that the attempt
// that each result is of has had it.
func (f *processFixture) checkEffects(tasks []taskbridge.Task) {
	f.t.Helper()
	file, err := os.Open(f.effects)
	must(f.t, err)
	defer file.Close()
	effects := map[string]int{}
	total := 0
	for lines := bufio.NewScanner(file); lines.Scan(); total++ {
		effects[lines.Text()]++
	}
	for attempt, n := range effects {
		if n != 1 {
			f.t.Errorf("attempt %s had its effect %d times", attempt, n)
		}
	}
	again := 0
	for _, task := range tasks {
		row := f.row(task)
		result, _ := row.Result()
		if effects[task.ID+" "+string(result)] != 1 {
			f.t.Errorf("task %s completed with the result of attempt %s, which left no effect", task.ID, result)
		}
		if row.Attempt > 1 {
			again++
		}
	}
	f.t.Logf("%d tasks, %d of them in more than one attempt, %d effects", len(tasks), again, total)
}
