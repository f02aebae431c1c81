package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// FollowOptions says from where and how a stream is followed. The zero value is
// from the beginning, with the defaults.
type FollowOptions struct {
	// After is the ID of the last event that the caller has dealt with; empty:
	// from the beginning.
	After string
	// FirstByte is how long a stream may take to show its first byte. One that
	// does not is taken to be held back by something on the way. Default 15 s; the
	// server sends something at once.
	FirstByte time.Duration
	// Silence is how long a stream may then be silent before it is given up and
	// opened anew; default 60 s. The server sends a heartbeat every 15 s or so.
	Silence time.Duration
	// PollWait is how long a long poll waits, where polling is what is left; 1 s
	// to 60 s, default 25 s.
	PollWait time.Duration
	// PollFor is how long polling lasts before streaming is tried again; it
	// doubles with each time that was in vain, up to sixteenfold. Default one
	// minute.
	PollFor time.Duration
}

func (o FollowOptions) withDefaults() (FollowOptions, error) {
	for _, option := range []struct {
		name   string
		value  *time.Duration
		preset time.Duration
	}{
		{"FirstByte", &o.FirstByte, 15 * time.Second},
		{"Silence", &o.Silence, time.Minute},
		{"PollWait", &o.PollWait, 25 * time.Second},
		{"PollFor", &o.PollFor, time.Minute},
	} {
		switch {
		case *option.value < 0:
			return o, &taskbridge.ArgumentError{Field: option.name, Reason: "must not be negative"}
		case *option.value == 0:
			*option.value = option.preset
		}
	}
	if o.PollWait < time.Second || o.PollWait > taskbridge.MaxPollWait {
		return o, &taskbridge.ArgumentError{Field: "PollWait", Reason: "must be one second to one minute"}
	}
	return o, nil
}

// Follow yields the events of a task's stream, each once and in order, up to its
// terminal event, after which it ends. Where the cursor is at the terminal event
// already it yields nothing.
//
// It reads server-sent events, and long polls where those can't be had: where
// something on the way holds the stream back, breaks it again and again before an
// event, or answers something else. After any cut it goes on behind the last
// event, through outages of the server, until ctx ends or Retry.MaxOutage is
// reached. The body of the loop may take as long as it likes: if the server gives
// the connection up meanwhile, the next one goes on where it was.
//
// An error comes last. It matches taskbridge.ErrEventGap (*taskbridge.GapError
// says more) if the stream does not have the event that the cursor names: what
// lies between is not known, and following from the beginning shows what there is
// now. ErrTaskNotFound, ErrForbidden and ErrUnauthenticated are final.
//
// Nothing is opened before the loop begins; leaving it closes the connection.
// Each loop over the same sequence starts after FollowOptions.After.
func (c *Client) Follow(ctx context.Context, taskID string, opts FollowOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		opts, err := opts.withDefaults()
		if err == nil {
			_, err = taskPath(taskID, "")
		}
		if err == nil && !sendable(opts.After) {
			err = fmt.Errorf("follow the task: %w", taskbridge.ErrInvalidCursor)
		}
		if err != nil {
			yield(Event{}, err)
			return
		}
		f := &follower{
			client: c, taskID: taskID, opts: opts, yield: yield, pollFor: opts.PollFor,
			at: newPosition(opts.After), pace: c.newPace("follow the task"), pageSize: maxPage,
		}
		if err := f.run(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// follower is one loop over a stream.
type follower struct {
	client *Client
	taskID string
	opts   FollowOptions
	yield  func(Event, error) bool
	at     *position
	pace   *pace

	vain      int  // streams in a row that brought nothing
	polling   bool // until pollUntil
	pollUntil time.Time
	pollFor   time.Duration // how long the next time
	pageSize  int
	begun     bool // an event has been yielded
	atEnd     bool // the last page was empty, of a task that has ended
}

const (
	// maxVain is how many streams in a row may bring nothing before polling is tried.
	maxVain = 3
	// maxPollFor is how often PollFor may double, as a factor.
	maxPollFor = 16
	// maxPage is how many events a poll asks for; 500 are allowed, of 32 KiB each.
	maxPage = 100
)

// unusable is an error of a stream that says that streaming does not work here.
type unusable struct{ err error }

func (e *unusable) Error() string { return e.err.Error() }
func (e *unusable) Unwrap() error { return e.err }

// run returns nil at the end of the stream, or when the caller has left the loop.
func (f *follower) run(ctx context.Context) error {
	for {
		if f.polling && !f.client.clock.Now().Before(f.pollUntil) {
			f.polling, f.vain = false, maxVain-1 // one try
		}
		before, polled := f.at.id, f.polling
		var over bool
		var err error
		if polled {
			over, err = f.poll(ctx)
		} else {
			over, err = f.stream(ctx)
		}
		var hopeless *unusable
		switch {
		case over:
			return nil
		case err == nil:
			continue // another page
		case ctx.Err() != nil || !errors.As(err, &hopeless) && !passing(err):
			return f.pace.failed(ctx, err)
		case polled:
			// It is no better than streaming then.
			f.polling, f.vain = false, 0
		case hopeless != nil:
			f.toPolling(err)
			continue
		case f.at.id == before:
			if f.vain++; f.vain >= maxVain {
				f.toPolling(err)
			}
		}
		if err := f.pace.failed(ctx, err); err != nil {
			return err
		}
	}
}

func (f *follower) toPolling(err error) {
	f.client.logger.Info("following by long polls, since streaming does not work", "taskId", f.taskID, "for", f.pollFor, "error", err)
	f.polling, f.pollUntil = true, f.client.clock.Now().Add(f.pollFor)
	f.pollFor = min(2*f.pollFor, maxPollFor*f.opts.PollFor)
}

// streamed notes that a stream has brought something.
func (f *follower) streamed() {
	f.pace.answered()
	f.vain, f.pollFor = 0, f.opts.PollFor
}

// take yields an event if it is new. over: nothing is to follow.
func (f *follower) take(ctx context.Context, e Event) (over bool, err error) {
	if e.ID == "0" || e.ID == "0-0" {
		// A server that does not know gap=error says it with a warning.
		return false, taskbridge.ErrEventGap
	}
	fresh, err := f.at.isNew(e.ID)
	switch {
	case err != nil || !fresh:
		return false, err
	case ctx.Err() != nil: // what is left of what was read is not wanted any more
		return false, ctx.Err()
	}
	f.at.move(e.ID)
	f.begun, f.atEnd = true, false
	return !f.yield(e, nil) || e.Terminal(), nil
}

// noMore ends the loop where the server says that nothing lies behind the cursor.
// It may say so of a cursor that came in; one that stands at an event which is
// not terminal has something behind it.
func (f *follower) noMore(status int) (over bool, err error) {
	if f.begun || f.at.id == "" {
		return false, unexpected(status, "the stream is said to have ended before its terminal event")
	}
	return true, nil
}
