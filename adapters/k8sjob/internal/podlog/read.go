package podlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// result is what one request for the log brought.
type result struct {
	fresh   int   // how many new lines
	found   bool  // the place was found up to which the log had been read
	fault   error // the request, or the connection, failed
	refused bool  // the answer is that there is no log
	refusal error // of the handler
	again   bool  // without a pause: the connection was given up
	// remnant is what followed the last line end.
	remnant     identity
	remnantText []byte
}

const (
	// A follower that has read so much, and nothing for so long, may follow a file
	// that was replaced before the kubelet watched it.
	staleBytes = 1 << 20
	staleAfter = 15 * time.Second
	// A line that was written so long after the one before, and came at once, may be
	// behind a file that was replaced while reading was slow.
	gap = 5 * time.Second
	// pace is the least time between two connections that are given up for a gap.
	pace = 30 * time.Second
)

// errGap gives a connection up.
var errGap = errors.New("a gap between two lines is looked at")

// read asks for the log from where it has been read to, and passes on what is new.
func (f *follower) read(ctx context.Context, follow bool) (got result) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := &corev1.PodLogOptions{Container: f.Container, Follow: follow, Timestamps: true}
	since, resumed := f.position.since()
	if resumed {
		opts.SinceTime = &metav1.Time{Time: since}
	}
	stream, err := f.Client.CoreV1().Pods(f.Namespace).GetLogs(f.Pod, opts).Stream(ctx)
	if err != nil {
		got.fault = fmt.Errorf("ask for the log: %w", err)
		got.refused = apierrors.IsBadRequest(err) || apierrors.IsNotFound(err) || apierrors.IsForbidden(err)
		return got
	}
	source := &watched{Reader: stream, activity: make(chan struct{}, 1), clock: f.Clock}
	var watching sync.WaitGroup
	if follow {
		watching.Go(func() { source.watch(ctx, cancel) })
	}
	defer watching.Wait()
	defer cancel()
	r := &reading{follower: f, result: &got, matcher: f.position.match(), resumed: resumed, source: source, opened: f.Clock.Now()}
	err = split(source, f.MaxLine+maxPrefix, r.line)
	got.found = r.matcher.found
	if closing := stream.Close(); err == nil && closing != nil {
		err = closing
	}
	switch {
	case got.refusal != nil:
	case errors.Is(err, errGap), source.stale.Load():
		got.again = true
	case err != nil:
		got.fault = fmt.Errorf("read the log: %w", err)
		got.refused = errors.Is(err, errNoLine)
	}
	return got
}

// reading is one response being read.
type reading struct {
	*follower
	*result
	matcher *matcher
	resumed bool
	source  *watched
	opened  time.Time
	begun   bool
	came    time.Time // when the line before did
	joined  bool      // the line before was passed on from this response
}

// line takes a line with its timestamp.
func (r *reading) line(text []byte, size int, whole bool) error {
	begun := r.begun
	r.begun = true
	t, said, ok := cutTime(text)
	if !ok {
		if whole && r.resumed && !begun {
			return nil // the rest of a line that began before that time
		}
		return fmt.Errorf("%w: %.200q", errNoLine, text)
	}
	size -= len(text) - len(said)
	if len(said) > r.MaxLine {
		said = said[:r.MaxLine]
	}
	id := identify(t, said, size)
	if !whole {
		r.remnant, r.remnantText = id, append([]byte(nil), said...)
		return nil
	}
	known, lost := r.matcher.known(id)
	if known {
		return nil
	}
	if r.suspicious(t) {
		return errGap
	}
	r.joined, r.came = true, r.source.came
	r.lost = r.lost || lost
	r.fresh++
	line := Line{Time: t, Ordinal: r.position.add(id), Text: said, Size: size, Lost: lost}
	if r.refusal = r.handle(line); r.refusal != nil {
		return r.refusal
	}
	return nil
}

// suspicious says whether the log is to be asked for again because of the time
// between two lines. It does not compare this clock with the node's, but for sparing
// what was there when the log was asked for.
func (r *reading) suspicious(t time.Time) bool {
	if !r.joined || !t.After(r.opened) {
		return false
	}
	between := t.Sub(time.Unix(0, r.position.last.nanos))
	now := r.Clock.Now()
	if between < gap || r.source.came.Sub(r.came) > between/2 || !r.checked.IsZero() && now.Sub(r.checked) < pace {
		return false
	}
	r.checked = now
	return true
}

// watched is a stream that is being followed.
type watched struct {
	io.Reader
	activity chan struct{}
	bytes    atomic.Int64
	waiting  atomic.Bool // in Read
	stale    atomic.Bool // given up
	clock    taskbridge.Clock
	came     time.Time // when the last bytes did; for the reader alone
}

func (w *watched) Read(p []byte) (int, error) {
	w.waiting.Store(true)
	n, err := w.Reader.Read(p)
	w.waiting.Store(false)
	w.came = w.clock.Now()
	w.bytes.Add(int64(n))
	select {
	case w.activity <- struct{}{}:
	default:
	}
	return n, err
}

// watch gives the stream up once it may be stale.
func (w *watched) watch(ctx context.Context, giveUp func()) {
	for {
		timer := w.clock.NewTimer(staleAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.activity:
			timer.Stop()
		case <-timer.C():
			if w.waiting.Load() && w.bytes.Load() >= staleBytes {
				w.stale.Store(true)
				giveUp()
				return
			}
		}
	}
}
