package taskbridge

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// tail is the live end of one stream in this process, shared by all of its
// subscribers: a byte-bounded run of the latest events, each read and encoded
// once. A subscriber inside the run takes from it, one further back reads the
// store for itself.
type tail struct {
	service   *TaskSubscriptionService
	taskID    string
	operation Operation // what an observer is told of a read
	refs      int       // under service.mu

	primed    chan struct{} // closed once the fields below are valid
	stopWatch func()

	mu sync.Mutex
	// frames is a contiguous run that ends with last. Elements are only ever
	// appended and cut off in front, never overwritten, so that parts of it can
	// be handed out as they are.
	frames  []Frame
	bytes   int
	cut     int    // how many have been cut off that the array of frames still holds
	last    Cursor // the last event known to be there
	ended   bool   // last is terminal
	readAt  time.Time
	err     error         // ends all subscriptions
	changed chan struct{} // closed and replaced whenever the above change
	filling bool
	again   bool // woken while filling

	watchers []*Subscription // those to be told of changes, each knows its place
	told     []*Subscription // of fill alone: those to be told this time
}

// fillPage is how many events a tail reads at once.
const fillPage = 256

// prime finds the end of the stream. The watch comes first: nothing that is
// appended later is missed.
func (t *tail) prime(ctx context.Context, row Task) error {
	stop, err := t.service.journal.events.WatchEvents(ctx, t.taskID, t.wake)
	if err != nil {
		return err
	}
	state, err := t.service.journal.events.StreamState(ctx, t.taskID)
	if err == nil && state.Controls < row.Controls {
		if _, err = t.service.journal.repair(ctx, row); err == nil {
			state, err = t.service.journal.events.StreamState(ctx, t.taskID)
		}
	}
	if err != nil {
		stop()
		return err
	}
	t.stopWatch = stop
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = Cursor{state.Last, state.LastTag}
	t.ended = state.Ended
	t.readAt = t.service.clock.Now()
	return nil
}

// wake is called by the store after appends, and by subscribers that have heard
// nothing for long. It does not block.
func (t *tail) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil || t.ended:
	case t.filling:
		t.again = true
	default:
		t.filling = true
		t.service.fills.Add(1) // before fail() can be called: Close waits after it
		go t.fill()
	}
}

// fill reads what is new until there is nothing more.
func (t *tail) fill() {
	defer t.service.fills.Done()
	const first, most = 100 * time.Millisecond, 5 * time.Second
	pause := first
	<-t.primed
	for {
		t.mu.Lock()
		t.again = false
		from, over := t.last, t.err != nil
		t.mu.Unlock()
		if over {
			return // nobody waits for it, however long the store is away
		}
		ctx, done := begin(t.service.life, t.service.observer, t.operation)
		events, _, err := t.service.readAfter(ctx, t.taskID, from, fillPage)
		done(err)
		switch {
		case asGap(err) != nil:
			// The history behind the tail has been replaced: each subscriber has
			// to find out with its own cursor.
			t.fail(err)
			return
		case err != nil && t.service.life.Err() != nil:
			return
		case err != nil:
			t.service.logger.Warn("stream not read, trying again", "taskId", t.taskID, "error", err)
			timer := t.service.clock.NewTimer(pause)
			pause = min(2*pause, most)
			select {
			case <-timer.C():
			case <-t.service.life.Done():
				timer.Stop()
				return
			}
			continue
		}
		pause = first
		if len(events) > 0 {
			t.add(encode(events))
			t.tell()
		}
		if t.settled(len(events) < fillPage) {
			return
		}
	}
}

// add puts new frames at the end, one at least.
func (t *tail) add(frames []Frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, frame := range frames {
		t.frames = append(t.frames, frame)
		t.bytes += frame.size()
	}
	for len(t.frames) > 0 && t.bytes > t.service.ringBytes {
		t.bytes -= t.frames[0].size()
		t.frames = t.frames[1:]
		t.cut++
	}
	if t.cut > len(t.frames) {
		t.frames, t.cut = slices.Clone(t.frames), 0
	}
	last := frames[len(frames)-1]
	t.last, t.ended = last.cursor(), last.Terminal
	t.broadcast()
}

// settled reports whether the filling is over.
func (t *tail) settled(caughtUp bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readAt = t.service.clock.Now()
	t.filling = t.err == nil && (!caughtUp || t.again) && !t.ended
	return !t.filling
}

// tellAtOnce is how many watchers are worth a goroutine of their own.
const tellAtOnce = 256

// tell calls the watchers. Events that are appended meanwhile wait and are
// then told of together: the more there is to do, the less it takes.
func (t *tail) tell() {
	t.mu.Lock()
	t.told = append(t.told[:0], t.watchers...)
	t.mu.Unlock()
	var next atomic.Int64
	some := func() {
		for {
			end := next.Add(tellAtOnce / 8)
			for _, watcher := range t.told[min(end-tellAtOnce/8, int64(len(t.told))):min(end, int64(len(t.told)))] {
				watcher.changed()
			}
			if end >= int64(len(t.told)) {
				return
			}
		}
	}
	var others sync.WaitGroup
	for range min((runtime.GOMAXPROCS(0)+1)/2, len(t.told)/tellAtOnce) - 1 {
		others.Go(some)
	}
	some()
	others.Wait()
	clear(t.told) // they may be closed before the next time
}

// watch has the subscription told of changes.
func (t *tail) watch(s *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.place = len(t.watchers)
	t.watchers = append(t.watchers, s)
}

func (t *tail) unwatch(s *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.watchers) - 1
	last := t.watchers[n]
	last.place = s.place
	t.watchers[s.place] = last
	t.watchers[n] = nil
	t.watchers = t.watchers[:n]
}

// fail ends all subscriptions.
func (t *tail) fail(err error) {
	t.mu.Lock()
	t.filling = false
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = err
	t.broadcast()
	watchers := slices.Clone(t.watchers)
	t.mu.Unlock()
	for _, watcher := range watchers {
		watcher.changed()
	}
}

func (t *tail) broadcast() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// position is where a subscriber stands in relation to the tail.
type position struct {
	frames  []Frame         // what to take next; nil: nothing, or read the store
	behind  bool            // the next event is not in memory
	ended   bool            // the subscriber has the terminal event
	changed <-chan struct{} // closed when there may be more
}

// after returns what follows the cursor, at most about limit bytes of it.
func (t *tail) after(c Cursor, limit int) (position, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return position{}, t.err
	}
	p := position{changed: t.changed}
	switch {
	case c.Sequence >= t.last.Sequence:
		p.ended = t.ended
	case len(t.frames) == 0 || t.frames[0].Sequence > c.Sequence+1:
		p.behind = true
	default:
		frames := t.frames[c.Sequence+1-t.frames[0].Sequence:]
		p.frames = upTo(frames, limit)
	}
	return p, nil
}

// encodePiece is how much memory frames share. Whoever holds one of them holds
// that much.
const encodePiece = 64 << 10

// encode makes frames of events, in few pieces of memory.
func encode(events []Event) []Frame {
	var buf []byte
	frames := make([]Frame, len(events))
	for i, e := range events {
		if need := envelopeSize(e); i == 0 || len(buf)+need > cap(buf) {
			size := 0
			for _, e := range events[i:] {
				if size += envelopeSize(e); size >= encodePiece {
					break
				}
			}
			buf = make([]byte, 0, size)
		}
		start := len(buf)
		buf = e.AppendEnvelope(buf)
		frames[i] = Frame{
			Sequence: e.Sequence,
			EventID:  e.ID(),
			Envelope: buf[start:len(buf):len(buf)],
			Terminal: e.Type.Terminal(),
			tag:      e.Tag,
		}
	}
	return frames
}

// envelopeSize is about what an event takes encoded, not less as a rule.
func envelopeSize(e Event) int { return 160 + len(e.TaskID) + len(e.Payload) }
