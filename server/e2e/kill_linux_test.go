package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	killRounds  = 15
	killClients = 8
)

// kinds of tasks that clients create: short and long ones of both executors.
// The long ones outlive the server that began them.
var kinds = []struct{ name, taskType, input string }{
	{"short demo", "demo", `{"ticks":5,"tickMillis":10,"result":"done"}`},
	{"long demo", "demo", `{"ticks":200,"tickMillis":20}`},
	{"failing demo", "demo", `{"ticks":5,"tickMillis":10,"failAfterTicks":3}`},
	{"short command", "short", `{}`},
	{"long command", "long", `{}`},
}

// killConfig marks its commands, so that they can be told from all others.
const killConfig = `
tasks:
  short:
    command: [sh, -c, 'echo "::taskbridge {\"progress\":50}"; echo "::taskbridge {\"result\":{\"ok\":true}}"']
    env: {E2E_MARK: %[1]q}
  long:
    command: [sh, -c, 'for i in 1 2 3 4 5 6 7 8 9 10; do echo "::taskbridge {\"progress\":${i}0}"; sleep 0.1 & wait; done']
    env: {E2E_MARK: %[1]q}
process: {maxRunning: 2, grace: 1s}
`

// place is where the server is at the moment.
type place struct {
	mu    sync.Mutex
	url   string
	moved chan struct{} // closed when url changes
}

func (p *place) move(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.url = url
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *place) now() (url string, moved <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.url, p.moved
}

// witness is what the clients know of one task.
type witness struct {
	id, kind string
	ended    bool // its stream has ended in good form
	events   []event
}

// crowd is the clients and what they have seen.
type crowd struct {
	t         *testing.T
	client    *client
	place     *place
	creating  context.Context
	next      atomic.Int64
	mu        sync.Mutex
	witnesses []*witness
}

// persist repeats an attempt until it succeeds, moving on with the server.
// An answer that is not wanted is a failure of the test.
func (c *crowd) persist(what string, attempt func(url string) error) {
	for {
		url, moved := c.place.now()
		err := attempt(url)
		var answer *unexpected
		switch {
		case err == nil:
			return
		case errors.As(err, &answer) && answer.status != http.StatusServiceUnavailable:
			c.t.Errorf("%s: %v", what, err)
			return
		}
		select {
		case <-moved: // this one is dead
		case <-time.After(20 * time.Millisecond): // not quite yet
		}
	}
}

// run creates tasks and follows each to its end, until creating ends.
func (c *crowd) run() {
	var following sync.WaitGroup
	defer following.Wait()
	slots := make(chan struct{}, 4)
	for c.creating.Err() == nil {
		slots <- struct{}{}
		n := c.next.Add(1)
		kind := kinds[int(n)%len(kinds)]
		w := &witness{kind: kind.name}
		c.persist("create", func(url string) error {
			task, err := c.client.create(url, fmt.Sprintf("key-%d", n), kind.taskType, kind.input)
			w.id = task.TaskID
			return err
		})
		c.mu.Lock()
		c.witnesses = append(c.witnesses, w)
		c.mu.Unlock()
		following.Go(func() {
			defer func() { <-slots }()
			c.persist("follow", func(url string) error {
				cursor := ""
				if n := len(w.events); n > 0 {
					cursor = w.events[n-1].EventID
				}
				return c.client.follow(context.Background(), url, w.id, cursor, func(e event) { w.events = append(w.events, e) })
			})
			w.ended = true
		})
	}
}

func TestNothingIsLostWhenTheServerIsKilledUnderLoad(t *testing.T) {
	killUnderLoad(t, func(round int) bool { return round <= killRounds })
}

// killUnderLoad kills the server again and again for as long as there is to be
// another round, then compares all that clients have seen with what is there.
func killUnderLoad(t *testing.T, another func(round int) bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "taskbridge.yaml"), fmt.Appendf(nil, killConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *server { return begin(t, dir, "--config", "taskbridge.yaml") }
	mark := "E2E_MARK=" + dir
	creating, stopCreating := context.WithCancel(context.Background())
	c := &crowd{t: t, client: newClient(t), place: &place{moved: make(chan struct{})}, creating: creating}
	defer stopCreating()

	var (
		clients   sync.WaitGroup
		s         = start()
		random    = rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
		survivors int
	)
	s.await()
	c.place.move(s.url)
	for range killClients {
		clients.Go(c.run)
	}
	rounds := 0
	for another(rounds + 1) {
		rounds++
		// From right after the start up to a second and a half under load.
		<-time.After(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
		running := processesWith(t, mark)
		s.kill()
		s = start()
		if rounds%3 == 0 { // and once more, in the midst of its recovery
			<-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
			s.kill()
			s = start()
		}
		s.await()
		survivors += len(running)
		for _, p := range running {
			if p.alive() {
				t.Errorf("round %d: the new server answers while %+v of an old one lives", rounds, p)
			}
		}
		c.place.move(s.url)
	}
	stopCreating()
	clients.Wait()

	outcomes := map[string]int{}
	for _, w := range c.witnesses {
		outcomes[w.kind+" "+c.check(s.url, w)]++
	}
	t.Logf("%d rounds, %d tasks, %d processes alive at a kill: %v", rounds, len(c.witnesses), survivors, outcomes)
	if survivors == 0 || outcomes["long demo FAILED"] == 0 || outcomes["long command FAILED"] == 0 || outcomes["short demo COMPLETED"] == 0 {
		t.Error("the kills have met too little")
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if left := processesWith(t, mark); len(left) > 0 {
		t.Errorf("left behind: %+v", left)
	}
}

// check compares what the clients saw of a task with what the server has.
func (c *crowd) check(url string, w *witness) (status string) {
	c.t.Helper()
	final, err := c.client.task(url, w.id)
	if err != nil {
		c.t.Errorf("%s %s: %v", w.kind, w.id, err)
		return "lost"
	}
	events, err := c.client.events(url, w.id)
	if err != nil {
		c.t.Errorf("%s %s: %v", w.kind, w.id, err)
		return "lost"
	}
	checkStream(c.t, w.id, events)
	// The client followed to the end, so it has seen everything, once.
	if seen, stored := rawOf(w.events), rawOf(events); !w.ended || seen != stored {
		c.t.Errorf("%s %s: seen\n%s\nstored\n%s", w.kind, w.id, seen, stored)
	}
	started := events[0].Type == "TASK_STARTED"
	last := events[len(events)-1]
	if last.Type != "TASK_"+final.Status {
		c.t.Errorf("%s %s: the row says %s, the stream %s", w.kind, w.id, final.Status, last.raw)
	}
	switch {
	case final.Status == "COMPLETED" && started && w.kind != "failing demo":
	case final.Status == "FAILED" && final.Failure == nil:
		c.t.Errorf("%s %s: %+v has no failure", w.kind, w.id, final)
	case final.Status == "FAILED" && w.kind == "failing demo" && final.Failure.Code == "DEMO_FAILED":
	case final.Status == "FAILED" && started && final.Failure.Code == "EXECUTOR_LOST" && final.Failure.Retryable:
	default:
		c.t.Errorf("%s %s: %+v %+v, started %v", w.kind, w.id, final, final.Failure, started)
	}
	return final.Status
}
