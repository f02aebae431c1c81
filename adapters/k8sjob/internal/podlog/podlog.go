// Package podlog reads what a container says to its end, over all that happens to
// connections, API servers and kubelets meanwhile.
package podlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Source is the container whose output is read.
type Source struct {
	Client    kubernetes.Interface
	Namespace string
	Pod       string
	// UID is the pod's: another pod of the same name is not read for it.
	UID       types.UID
	Container string
	// Created is when the pod was created; ordinals count from it.
	Created time.Time
}

// Options configures [Follow]; zero fields mean the defaults.
type Options struct {
	// MaxLine is the most bytes of a line that are kept; default 64 KiB.
	MaxLine int
	// RetryFirst and RetryMost bound the pause before the log is asked for again:
	// it doubles while nothing new comes. Defaults 250 ms and 5 s.
	RetryFirst, RetryMost time.Duration
	// Patience is for how long the log of a container that has ended may be asked
	// for in vain while the API server answers; default 2 min, and a quarter of it
	// where the answer is that there is none.
	Patience time.Duration
	// Away, if it is set, is called each time that the API server did not answer.
	Away   func()
	Clock  taskbridge.Clock
	Logger *slog.Logger // nil: discarded
}

// Line is one line of output, standard output and error together.
type Line struct {
	// Time is when the runtime read the line, by the node's clock.
	Time time.Time
	// Ordinal rises from line to line, at most 2^53-1. It is the same for whoever
	// reads the log, from its beginning or from what rotation left of it, unless the
	// node's clock was set back around the line.
	Ordinal int64
	// Text has no line end, neither LF nor CR LF. It need not be UTF-8, has at most
	// Options.MaxLine bytes, and is valid during the call only.
	Text []byte
	// Size is how many bytes the line has: more than Text if that is cut.
	Size int
	// Lost: of what was written between the line before and this one something may
	// be missing.
	Lost bool
}

// End is how far a log was read.
type End struct {
	// Complete: the container has ended, and what there was of its output was read.
	// Otherwise the pod, or what the node had of it, was gone before.
	Complete bool
	// Closed, where Complete is false: the log had ended as it does with the
	// container, and then the pod was gone before it could be asked. If the container
	// is known to have ended, all was read. (The API server ends a log in the same way
	// when it loses the node.)
	Closed bool
	// Lost: something may be missing, at the end or before a line that said so.
	Lost bool
}

// Follow passes the lines of a container on, from the first that is there until the
// container has ended: each once, in order. It waits for a container that has not
// started. An error of handle, which is called from one goroutine, ends it and is
// returned; so is the error of ctx.
//
// The API has the log's current file only, which the kubelet replaces as it grows (10
// MiB by default). So what was written while nothing was read may be gone. That is
// seen, and told by Line.Lost, where the last line that was read is gone as well. It
// is not seen for what was gone before Follow was called; for the few lines that are
// written while the kubelet changes the files; and where the node's clock was set
// back by more than a second while nothing was read.
func Follow(ctx context.Context, source Source, opts Options, handle func(Line) error) (End, error) {
	opts.MaxLine = cmp.Or(opts.MaxLine, 64<<10)
	opts.RetryFirst = cmp.Or(opts.RetryFirst, 250*time.Millisecond)
	opts.RetryMost = max(opts.RetryFirst, cmp.Or(opts.RetryMost, 5*time.Second))
	opts.Patience = cmp.Or(opts.Patience, 2*time.Minute)
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.Logger = opts.Logger.With("namespace", source.Namespace, "pod", source.Pod, "container", source.Container)
	f := &follower{Source: source, Options: opts, handle: handle, position: newPosition(source.Created), pause: opts.RetryFirst}
	end, err := f.follow(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("read the log of pod %s: %w", source.Pod, context.Cause(ctx))
	}
	return end, err
}

// follower is one call of Follow.
type follower struct {
	Source
	Options
	handle   func(Line) error
	position *position
	lost     bool
	pause    time.Duration
	// closed is the last answer of a follower, if that has ended by itself and
	// nothing was heard since but that there is no log.
	closed *result
	// checked is when the connection was last given up because of a gap.
	checked time.Time
}

// follow reads while the container may say more, and then what is left.
func (f *follower) follow(ctx context.Context) (End, error) {
	for {
		got := f.read(ctx, true)
		if err := f.stopped(ctx, got); err != nil {
			return End{Lost: f.lost}, err
		}
		f.tell(got)
		f.close(got, true)
		if got.again {
			continue
		}
		state := f.look(ctx)
		switch state {
		case gone:
			return f.vanished(End{Closed: f.closed != nil, Lost: f.lost})
		case unborn:
			return End{Complete: true, Lost: f.lost}, nil
		case ended:
			return f.finish(ctx)
		}
		if got.fault != nil {
			f.closed = nil
		}
		if err := f.rest(ctx, got.fresh > 0); err != nil {
			return End{Lost: f.lost}, err
		}
	}
}

// maxMisses is how often the last line may be missing from the log of a container
// that has ended until that is believed: a response that was cut looks whole.
const maxMisses = 3

// finish reads what is left of a container that has ended, until a try brings nothing
// new.
func (f *follower) finish(ctx context.Context) (End, error) {
	f.pause = f.RetryFirst
	var failing time.Time // since when
	misses := 0
	var remnant identity
	for {
		got := f.read(ctx, false)
		if err := f.stopped(ctx, got); err != nil {
			return End{Lost: f.lost}, err
		}
		f.tell(got)
		f.close(got, false)
		now := f.Clock.Now()
		switch {
		case got.fault != nil:
			state := f.look(ctx)
			if failing.IsZero() || state == unknown {
				failing = now
			}
			patience := f.Patience
			if got.refused {
				patience /= 4
			}
			if state == gone && f.closed != nil {
				return f.vanished(End{Complete: true, Lost: f.lost})
			}
			if state == gone || now.Sub(failing) >= patience {
				f.Logger.Warn("log of a container that has ended not read to its end", "error", got.fault)
				return End{Lost: f.lost}, nil
			}
		case got.fresh > 0:
			failing, misses = time.Time{}, 0
			continue
		case !got.found:
			failing = time.Time{}
			if misses++; misses == maxMisses {
				return End{Complete: true, Lost: true}, nil
			}
		case got.remnant != remnant: // it may be cut
			remnant = got.remnant
			continue
		default:
			return End{Complete: true, Lost: f.lost}, f.last(got)
		}
		if err := f.rest(ctx, false); err != nil {
			return End{Lost: f.lost}, err
		}
	}
}

// close notes whether a log has ended by itself. What says so is the answer to one who
// follows: the kubelet ends it once the container has, and all was sent.
func (f *follower) close(got result, following bool) {
	switch {
	case following && got.fault == nil && !got.again:
		f.closed = &got
	case got.fresh > 0 || got.fault != nil && !got.refused:
		f.closed = nil
	}
}

// vanished is the end where the pod is gone: nobody will say more of the last line.
func (f *follower) vanished(end End) (End, error) {
	if f.closed == nil {
		return end, nil
	}
	return end, f.last(*f.closed)
}

// last passes on what follows the last line end.
func (f *follower) last(got result) error {
	if got.remnant == (identity{}) {
		return nil
	}
	return f.handle(Line{
		Time: time.Unix(0, got.remnant.nanos).UTC(), Ordinal: f.position.add(got.remnant),
		Text: got.remnantText, Size: got.remnant.size,
	})
}

// stopped returns the error with which Follow ends now.
func (f *follower) stopped(ctx context.Context, got result) error {
	if got.refusal != nil {
		return got.refusal
	}
	return ctx.Err()
}

func (f *follower) tell(got result) {
	if got.fault != nil {
		f.Logger.Debug("log is asked for again", "error", got.fault)
	}
}

// rest waits before the next try.
func (f *follower) rest(ctx context.Context, anew bool) error {
	if anew {
		f.pause = f.RetryFirst
	}
	timer := f.Clock.NewTimer(f.pause)
	defer timer.Stop()
	f.pause = min(2*f.pause, f.RetryMost)
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errNoLine = errors.New("the API sent something that is no line of the container")
