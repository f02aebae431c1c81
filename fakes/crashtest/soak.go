package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// Soak plays one random game: clients create, poll and cancel, workers of a
// runtime start, report, end and give up, all at once over two servers, of which
// single calls fail and which die and are started again. Then everything is
// mended and what was promised to anybody is checked. The seed decides what is
// tried; the scheduler decides what comes of it.
func Soak(t *testing.T, h Harness, seed uint64) {
	t.Helper()
	g := &game{
		world: newWorld(t, h), runtime: newRuntime(),
		random:    rand.New(rand.NewPCG(seed, seed)),
		created:   make(map[string]string),
		cancelled: make(map[string]bool),
		ended:     make(map[string]taskbridge.TaskStatus),
		seen:      make(map[string][]taskbridge.Event),
	}
	g.runtime.crowded = true
	passing, stop := context.WithCancel(g.ctx)
	var pump, actors sync.WaitGroup
	pump.Go(func() { g.letTimePass(passing) })
	for range 3 {
		actors.Go(func() { g.act(60, g.createOne) })
		actors.Go(func() { g.act(120, g.workOne) })
	}
	actors.Go(func() { g.act(30, g.cancelOne) })
	actors.Go(func() { g.act(200, g.pollOne) })
	for range 2 {
		reader := make(map[string][]taskbridge.Frame)
		g.readers = append(g.readers, reader)
		actors.Go(func() { g.act(60, func() { g.streamOne(reader) }) })
	}
	for i := range g.servers {
		actors.Go(func() { g.act(60, func() { g.reconcileOne(i) }) })
	}
	actors.Wait()
	for _, p := range g.servers {
		if p != nil {
			p.kill()
		}
	}
	stop()
	pump.Wait()
	g.check()
}

const gameKeys = 12

// game is what happens in the course of one call of Soak, and what has been
// promised in it.
type game struct {
	*world
	runtime *runtime

	serversMu sync.Mutex
	servers   [2]*process

	mu        sync.Mutex
	random    *rand.Rand
	created   map[string]string // task id by key
	cancelled map[string]bool   // cancellation accepted, by task
	ended     map[string]taskbridge.TaskStatus
	seen      map[string][]taskbridge.Event
	readers   []map[string][]taskbridge.Frame // what each has been sent, by task
	claims    int
	faults    int
	deaths    int
}

// chance is true with a probability of n in 1000.
func (g *game) chance(n int) bool { return g.pick(1000) < n }

func (g *game) pick(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.random.IntN(n)
}

func (g *game) act(times int, action func()) {
	for range times {
		action()
	}
}

// letTimePass moves the clock when somebody waits to try again.
func (g *game) letTimePass(ctx context.Context) {
	for g.clock.BlockUntilDue(ctx, 1, 3*time.Second) == nil {
		g.clock.AdvanceToNext()
	}
}

// server returns a server that lives, or did just now.
func (g *game) server(i int) *process {
	g.serversMu.Lock()
	defer g.serversMu.Unlock()
	if p := g.servers[i]; p != nil && !p.dead() {
		return p
	}
	if g.servers[i] != nil {
		g.servers[i].kill()
	}
	p := g.start(g.runtime.in)
	trouble := fakes.Fault{
		Before: func(_ context.Context, _ fakes.Call) error { return g.trouble(p) },
		After: func(_ context.Context, _ fakes.Call, err error) error {
			if err == nil {
				err = g.trouble(p)
			}
			return err
		},
	}
	for _, op := range []fakes.Op{
		fakes.OpCreateTask, fakes.OpGetTask, fakes.OpUpdateTask, fakes.OpDueTasks, fakes.OpWatchTask,
		fakes.OpAppendEvent, fakes.OpReadEvents, fakes.OpStreamState, fakes.OpWatchEvents, fakes.OpUpdateTaskAndAppend,
		fakes.OpSubmitTask, fakes.OpRequestCancellation, fakes.OpInspectTask,
	} {
		p.faults.OnEvery(op, trouble)
	}
	g.servers[i] = p
	return p
}

func (g *game) trouble(p *process) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch n := g.random.IntN(1000); {
	case n < 3:
		g.deaths++
		p.faults.Kill()
		return fakes.ErrCrashed
	case n < 30:
		g.faults++
		return fakes.ErrInjected
	}
	return nil
}

func (g *game) anyServer() *process { return g.server(g.pick(len(g.servers))) }

// anyTask returns a task that was promised to a client, "" if there is none yet.
func (g *game) anyTask() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for _, id := range g.created {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	return ids[g.random.IntN(len(ids))]
}

func (g *game) createOne() {
	key := fmt.Sprintf("key-%d", g.pick(gameKeys))
	result, err := g.anyServer().createAs(key)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if had := g.created[key]; had != "" && had != result.Task.ID {
		g.t.Errorf("%s gave task %s and then %s", key, had, result.Task.ID)
	}
	g.created[key] = result.Task.ID
}

func (g *game) cancelOne() {
	id := g.anyTask()
	if id == "" {
		return
	}
	p := g.anyServer()
	if _, already, err := p.bridge.Cancellation.CancelTask(p.ctx, client, id, cancelReason); err == nil && !already {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cancelled[id] = true
	}
}

// pollOne reads on where clients stopped.
func (g *game) pollOne() {
	id := g.anyTask()
	if id == "" {
		return
	}
	g.mu.Lock()
	seen := g.seen[id]
	g.mu.Unlock()
	var after taskbridge.Cursor
	if n := len(seen); n > 0 {
		after = cursorOf(seen[n-1])
	}
	p := g.anyServer()
	page, err := p.bridge.Polling.PollEvents(p.ctx, client, taskbridge.PollRequest{TaskID: id, After: after, GapError: true})
	if err != nil {
		if errors.Is(err, taskbridge.ErrEventGap) || errors.Is(err, taskbridge.ErrTaskNotFound) {
			g.t.Errorf("poll of %s after %s: %v", id, after, err)
		}
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.seen[id]) == len(seen) {
		g.seen[id] = append(seen[:len(seen):len(seen)], page.Events...)
	}
}

// streamOne is a client that reads live, from where it was cut off the last time.
func (g *game) streamOne(reader map[string][]taskbridge.Frame) {
	id := g.anyTask()
	if id == "" {
		return
	}
	var after taskbridge.Cursor
	if n := len(reader[id]); n > 0 {
		after, _ = taskbridge.ParseCursor(reader[id][n-1].EventID)
	}
	p := g.anyServer()
	subscription, err := p.bridge.Subscription.Subscribe(p.ctx, client, taskbridge.SubscribeRequest{TaskID: id, After: after, GapError: true})
	for err == nil && g.chance(900) {
		var frames []taskbridge.Frame
		frames, err = subscription.Next(p.ctx, time.Second)
		reader[id] = append(reader[id], frames...)
	}
	if subscription != nil {
		subscription.Close()
	}
	if errors.Is(err, taskbridge.ErrEventGap) || errors.Is(err, taskbridge.ErrTaskNotFound) {
		g.t.Errorf("subscription to %s after %s: %v", id, after, err)
	}
}

func (g *game) reconcileOne(i int) {
	p := g.server(i)
	_ = p.bridge.Reconciler.RunOnce(p.ctx) // what fails stays due
	g.clock.Advance(time.Duration(1+g.pick(5)) * time.Second)
}

// workOne is a worker that the runtime gives a task to.
func (g *game) workOne() {
	jobs := g.runtime.unfinished()
	if len(jobs) == 0 {
		return
	}
	j := jobs[g.pick(len(jobs))]
	id, claim, fresh := j.task.ID, j.claim, false
	if claim == "" || g.chance(300) {
		g.mu.Lock()
		g.claims++
		claim, fresh = fmt.Sprintf("claim %d", g.claims), true
		g.mu.Unlock()
	}
	g.runtime.handOver(id, claim)
	g.mu.Lock()
	cancelled, ended := g.cancelled[id], g.ended[id]
	g.mu.Unlock()
	p := g.anyServer()
	run, err := p.begin(id, claim)
	if refusedToRun(err) {
		g.runtime.done(id)
		return
	}
	if err != nil {
		return // the runtime gives it to another
	}
	if ended != "" || fresh && cancelled {
		g.t.Errorf("the work of %s was started: it had ended %q, was cancelled %v", id, ended, cancelled)
	}
	for i := range g.pick(4) {
		switch g.pick(3) {
		case 0:
			err = run.Message(p.ctx, taskbridge.Message{Text: fmt.Sprintf("%s says %d", claim, i)})
		case 1:
			err = run.Token(p.ctx, fmt.Sprintf("%s, token %d; ", claim, i))
		default:
			err = run.Progress(p.ctx, taskbridge.Progress{Percent: float64(i)})
		}
		if err != nil && !errors.Is(err, fakes.ErrInjected) {
			break
		}
	}
	if g.chance(250) {
		return // it dies
	}
	status := taskbridge.StatusCompleted
	select {
	case <-run.CancelRequested():
		status = taskbridge.StatusCancelled
		err = run.Cancelled(p.ctx, "")
	default:
		if g.chance(300) {
			status = taskbridge.StatusFailed
			err = run.Fail(p.ctx, taskbridge.Failure{Code: "BROKEN", Message: claim})
		} else {
			err = run.Complete(p.ctx, taskbridge.Completion{Result: fmt.Appendf(nil, "%q", claim)})
		}
	}
	if err != nil {
		return
	}
	g.runtime.done(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if had := g.ended[id]; had != "" && had != status {
		g.t.Errorf("%s was told to have ended %s and then %s", id, had, status)
	}
	g.ended[id] = status
}

// check mends everything, lets it come to its end and looks at it.
func (g *game) check() {
	t := g.t
	t.Helper()
	left := make(map[string][]taskbridge.Event)
	for _, row := range g.rows() {
		left[row.ID] = g.events(row.ID)
	}
	for key, id := range g.created {
		if _, there := left[id]; !there {
			t.Errorf("task %s of %s was promised to a client and is not there", id, key)
		}
	}
	p := g.start(g.runtime.in)
	a := aftermaths()[g.pick(len(aftermaths()))]
	for range 200 {
		a.act(p, g.runtime)
		p.reconcile()
		if g.world.ended() {
			break
		}
		g.clock.Advance(15 * time.Second)
	}
	// How many attempts there are is not checked: an execution that is started
	// again when another has come in between is one more.
	g.runtime.checkSubmits(t)
	ends := make(map[taskbridge.TaskStatus]int)
	defer func() { t.Logf("%d calls failed, servers died %d times, ends: %v", g.faults, g.deaths, ends) }()
	for _, row := range g.rows() {
		row, events := p.checkEnd(row.ID)
		ends[row.Status]++
		for what, seen := range map[string][]taskbridge.Event{"has seen": g.seen[row.ID], "could have seen": left[row.ID]} {
			if len(seen) > len(events) || !sameEvents(seen, events[:len(seen)]) {
				t.Errorf("a client %s %s, now the stream is %s", what, ids(seen), ids(events))
			}
		}
		for _, reader := range g.readers {
			for i, frame := range reader[row.ID] {
				if i >= len(events) || !bytes.Equal(frame.Envelope, events[i].AppendEnvelope(nil)) {
					t.Errorf("a subscriber was sent %s as event %d, the stream is %s", frame.Envelope, i+1, ids(events))
					break
				}
			}
		}
		if told := g.ended[row.ID]; told != "" && row.Status != told {
			t.Errorf("a worker was told that %s ended %s, it is %s", row.ID, told, row.Status)
		}
		if row.Status == taskbridge.StatusCancelled && !bytes.Contains(row.Terminal, []byte(`"reason":"`+cancelReason+`"`)) {
			t.Errorf("%s ended CANCELLED with %s", row.ID, row.Terminal)
		}
		p.checkRefused(row.ID)
		p.checkStaysEnded(row.ID)
	}
}
