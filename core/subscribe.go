package taskbridge

import (
	"cmp"
	"context"
	"io"
	"sync"
	"time"
)

// SubscriptionOptions tunes live delivery. Zero fields mean the defaults.
type SubscriptionOptions struct {
	// RingBytes bounds the recent events kept in memory for each task that has
	// subscribers; default 256 KiB.
	RingBytes int
	// ReplayBytes bounds the older events kept in memory, over all streams that
	// have subscribers, for readers who replay them; default 32 MiB.
	ReplayBytes int
	// Backstop is how long a task with subscribers may go without being read,
	// should a wake-up have been lost; default 30 s.
	Backstop time.Duration
}

// TaskSubscriptionService delivers streams live. Safe for concurrent use.
type TaskSubscriptionService struct {
	*base
	ringBytes int
	backstop  time.Duration
	replays   *replayCache

	life    context.Context
	endLife context.CancelFunc
	fills   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	tails  map[string]*tail
}

func newSubscriptionService(b *base, opts SubscriptionOptions) (*TaskSubscriptionService, error) {
	if opts.RingBytes < 0 || opts.ReplayBytes < 0 || opts.Backstop < 0 {
		return nil, argumentErrorf("SubscriptionOptions", "must not be negative")
	}
	s := &TaskSubscriptionService{
		base:      b,
		ringBytes: cmp.Or(opts.RingBytes, 256<<10),
		backstop:  cmp.Or(opts.Backstop, 30*time.Second),
		tails:     make(map[string]*tail),
	}
	s.replays = newReplayCache(s, cmp.Or(opts.ReplayBytes, 32<<20))
	s.life, s.endLife = context.WithCancel(context.Background())
	return s, nil
}

// SubscribeRequest asks for a stream from a cursor on.
type SubscribeRequest struct {
	TaskID string
	After  Cursor
	// GapError: see [PollRequest].
	GapError bool
}

// Frame is an event as it is delivered. Its bytes are shared by all subscribers
// and must not be written to.
type Frame struct {
	// Sequence is 0 for the warning that comes before a stream that starts again.
	Sequence int64
	EventID  string
	// Envelope is the wire envelope: one line of JSON.
	Envelope []byte
	Terminal bool

	tag string
}

func (f Frame) cursor() Cursor { return Cursor{f.Sequence, f.tag} }

// frameOverhead is about what a frame takes beside its envelope.
const frameOverhead = 96

func (f Frame) size() int { return len(f.Envelope) + frameOverhead }

// Subscribe opens a subscription; the caller closes it.
// Errors: [ErrForbidden], [ErrTaskNotFound], [*GapError], [ErrClosed].
func (s *TaskSubscriptionService) Subscribe(ctx context.Context, principal Principal, request SubscribeRequest) (*Subscription, error) {
	row, err := s.visible(ctx, principal, request.TaskID, PermissionRead)
	if err != nil {
		return nil, err
	}
	t, err := s.acquire(ctx, row)
	if err != nil {
		return nil, err
	}
	sub := &Subscription{service: s, tail: t, owner: row.Owner, cursor: request.After, page: firstPage}
	if err := sub.open(ctx, row, request.GapError); err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// acquire returns the task's tail, counted.
func (s *TaskSubscriptionService) acquire(ctx context.Context, row Task) (*tail, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		t, there := s.tails[row.ID]
		if !there {
			t = &tail{
				service: s, taskID: row.ID, operation: row.operation(OperationDeliver),
				primed: make(chan struct{}), changed: make(chan struct{}),
			}
			s.tails[row.ID] = t
		}
		t.refs++
		s.mu.Unlock()

		if !there {
			err := t.prime(ctx, row)
			if err != nil {
				t.fail(err)
			}
			close(t.primed)
			if err != nil {
				s.release(t)
				return nil, err
			}
			return t, nil
		}
		select {
		case <-t.primed:
		case <-ctx.Done():
			s.release(t)
			return nil, ctx.Err()
		}
		if _, err := t.after(Cursor{}, 0); err == nil {
			return t, nil
		}
		// It failed, for reasons of the one who made it or of a history that was
		// replaced: that says nothing about this subscriber.
		s.release(t)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// release gives a tail back. One that failed is replaced at once, and the last
// to go clears up.
func (s *TaskSubscriptionService) release(t *tail) {
	_, failed := t.after(Cursor{}, 0)
	s.mu.Lock()
	t.refs--
	last := t.refs == 0
	if (last || failed != nil) && s.tails[t.taskID] == t {
		delete(s.tails, t.taskID)
	}
	if last {
		t.fail(ErrClosed) // before Close can miss it: no read begins after
	}
	s.mu.Unlock()
	if last {
		<-t.primed
		if t.stopWatch != nil {
			t.stopWatch()
		}
		s.replays.forget(t)
	}
}

// Close ends all subscriptions with [ErrClosed] and waits for the reads that
// are under way. The subscriptions are still to be closed by their owners.
func (s *TaskSubscriptionService) Close() {
	s.mu.Lock()
	s.closed = true
	tails := make([]*tail, 0, len(s.tails))
	for _, t := range s.tails {
		tails = append(tails, t)
	}
	s.mu.Unlock()
	s.endLife()
	for _, t := range tails {
		t.fail(ErrClosed)
	}
	s.fills.Wait()
}

// Subscription is one reader's place in a stream. It is used by one goroutine at
// a time; Close may be called from any.
type Subscription struct {
	service *TaskSubscriptionService
	tail    *tail
	owner   string
	cursor  Cursor
	warning []Frame // to be delivered first
	final   *Event  // the terminal event, where the cursor names it
	over    bool    // the terminal event has been returned; the tail may not have it yet
	page    int     // how many events to read from the store at once
	release sync.Once

	changed func() // nil: nobody watches
	place   int    // among the tail's watchers; under its mu
}

const (
	// firstPage is how many events a subscriber whom the shared pages do not serve
	// reads at once, replayPage how many as long as they are small.
	firstPage  = 32
	replayPage = 500
	// batchBytes is about how much Next returns at once.
	batchBytes = 128 << 10
)

// open verifies the cursor.
func (s *Subscription) open(ctx context.Context, row Task, gapError bool) error {
	if s.cursor.Sequence > 0 {
		_, named, err := s.service.readAfter(ctx, row.ID, s.cursor, 1)
		gap := asGap(err)
		switch {
		case err == nil:
			if named.Type.Terminal() {
				s.final = named
			}
		case gap != nil && !gapError:
			s.cursor = Cursor{}
			s.warning = encode([]Event{s.service.gapWarning(gap)})
		default:
			return err
		}
	}
	if row.Status.Terminal() {
		// A tail that was there before may not have heard of the end yet.
		s.tail.wake()
	}
	return nil
}

// Next returns the frames after the last ones returned, at least one and
// bounded in bytes, waiting up to idle for the first; none and no error when
// idle has passed, with 0 what is there already. After the terminal event has been returned: io.EOF. Other
// errors end the subscription: ctx's, [ErrClosed], [*GapError] (the history was
// replaced underneath), or a store that is away; the client resumes from its
// cursor.
func (s *Subscription) Next(ctx context.Context, idle time.Duration) ([]Frame, error) {
	if frames := s.warning; frames != nil {
		s.warning = nil
		return frames, nil
	}
	if s.over {
		return nil, io.EOF
	}
	var timer Timer // made only when there is nothing to return at once
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := s.tail.after(s.cursor, batchBytes)
		switch {
		case err != nil:
			return nil, err
		case p.behind:
			if p.frames, err = s.replay(ctx); err != nil {
				return nil, err
			}
		case p.ended:
			return nil, io.EOF
		}
		if n := len(p.frames); n > 0 {
			if timer != nil {
				timer.Stop()
			}
			s.cursor, s.over = p.frames[n-1].cursor(), p.frames[n-1].Terminal
			return p.frames, nil
		}
		if idle <= 0 {
			s.checkBackstop()
			return nil, nil
		}
		if timer == nil {
			timer = s.service.clock.NewTimer(idle)
			defer timer.Stop()
		}
		select {
		case <-p.changed:
		case <-timer.C():
			s.checkBackstop()
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Watch has changed called whenever there may be more to return, be it frames or
// an error: for readers that keep no goroutine waiting in Next. Watch is called
// once, before the subscription is shared; what was there before is not told of,
// so look with Next afterwards. One goroutine calls for many subscriptions:
// changed must not wait for anything. Calls may overlap each other and Close.
func (s *Subscription) Watch(changed func()) {
	s.changed = changed
	s.tail.watch(s)
}

// Ready is Next for what changed can do without waiting: it returns the frames
// that are in memory, none if there is nothing more. Where it is not ok, there is
// something that only Next can return, or that has to be read first.
func (s *Subscription) Ready() (frames []Frame, ok bool) {
	if s.warning != nil || s.over {
		return nil, false
	}
	p, err := s.tail.after(s.cursor, batchBytes)
	if err != nil || p.behind || p.ended {
		return nil, false
	}
	if n := len(p.frames); n > 0 {
		s.cursor, s.over = p.frames[n-1].cursor(), p.frames[n-1].Terminal
	}
	return p.frames, true
}

// replay takes what comes next from the pages that readers share, or else from
// the store. A page of large events makes the next one shorter.
func (s *Subscription) replay(ctx context.Context) ([]Frame, error) {
	frames, err := s.service.replays.after(ctx, s.tail, s.cursor, batchBytes)
	if err != nil || len(frames) > 0 {
		return frames, err
	}
	events, _, err := s.service.readAfter(ctx, s.tail.taskID, s.cursor, s.page)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, e := range events {
		size += len(e.Payload)
	}
	switch {
	case size > 2*batchBytes:
		s.page = max(4, s.page/4)
	case size < batchBytes/2:
		s.page = min(2*s.page, replayPage)
	}
	return encode(events), nil
}

// checkBackstop has the tail read if it has heard nothing for long.
func (s *Subscription) checkBackstop() {
	t := s.tail
	t.mu.Lock()
	due := s.service.clock.Now().Sub(t.readAt) >= s.service.backstop
	t.mu.Unlock()
	if due {
		t.wake()
	}
}

// Cursor is where the subscription stands: the last event that was returned, or
// the one that it was opened after; zero where it begins, or begins again, at the
// stream's start.
func (s *Subscription) Cursor() Cursor { return s.cursor }

// AtEnd reports whether the cursor that the subscription was opened with is the
// terminal event's: there is nothing more to come.
func (s *Subscription) AtEnd() bool { return s.final != nil }

// Final returns the terminal event once more where AtEnd is true: for clients
// that end on nothing else.
func (s *Subscription) Final() (Frame, bool) {
	if s.final == nil {
		return Frame{}, false
	}
	return encode([]Event{*s.final})[0], true
}

// Permitted reports whether the principal may still read this task: transports
// ask now and then while a stream lives, with the principal as it is then.
func (s *Subscription) Permitted(principal Principal) bool {
	policy := s.service.ownership
	return policy.Allows(principal, PermissionRead) && policy.MayAccess(principal, s.owner, PermissionRead)
}

// Close releases the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.release.Do(func() {
		if s.changed != nil {
			s.tail.unwatch(s)
		}
		s.service.release(s.tail)
	})
}
