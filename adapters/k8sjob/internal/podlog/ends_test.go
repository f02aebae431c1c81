package podlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func every(step time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return step }
}

// leaping is a clock whose timers fire at once, after the time has passed.
type leaping struct {
	mu  sync.Mutex
	now time.Time
}

func (c *leaping) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *leaping) NewTimer(d time.Duration) taskbridge.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return taskbridge.SystemClock{}.NewTimer(0)
}

func TestAPodThatIsGoneEndsTheReading(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(100, every(time.Millisecond)))
	n.deleted = true
	if lines, end := read(t, n, Options{}); len(lines) != 100 || end.Complete {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
}

// What is asked after a pod went is the API server, which cannot tell a log that was
// cut by the node's loss from one that has ended.
func TestHowTheLogEndedTellsWhetherItWasWholeWhenThePodIsGone(t *testing.T) {
	t.Parallel()
	// script is what goes wrong, one after the other, at requests and after bursts;
	// with the last of it the pod goes, if it goes then.
	script := func(n *node, goes bool, faults ...fault) {
		n.fault = func(*rand.Rand) fault {
			if len(faults) == 0 {
				return none
			}
			next := faults[0]
			faults = faults[1:]
			n.deleted = n.deleted || goes && len(faults) == 0
			return next
		}
	}
	for name, test := range map[string]struct {
		change func(*node)
		lines  int // fewest
		want   End
	}{
		"it ended, and the pod went at once":            {func(*node) {}, 101, End{Closed: true}},
		"it ended, the container had, and the pod went": {func(n *node) { n.looks = 1 }, 101, End{Complete: true}},
		"it ended, the container seemed to run still, and the pod went": {
			func(n *node) { n.looks, n.lag = 1, 1 }, 101, End{Closed: true},
		},
		"it ended, the container had, the node was away, and the pod went": {
			func(n *node) {
				n.looks = 2
				script(n, true, append(make([]fault, 102), says500)...)
			}, 100, End{},
		},
		"its connection was reset, and the pod went": {func(n *node) { script(n, true, none, none, none, reset) }, 0, End{}},
		"it was cut unseen, the node was away, and the pod went": {
			func(n *node) { script(n, true, none, none, none, ends, says500) }, 1, End{},
		},
		"the kubelet wrote that it cannot go on, and the pod went": {func(n *node) { script(n, true, none, none, none, saysText) }, 1, End{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, 1, progress(100, every(time.Millisecond)))
			n.remnant, n.vanishes = created.Add(time.Minute).Format(time.RFC3339Nano)+" the end", true
			n.burst = 1
			test.change(n)
			lines, end := read(t, n, Options{})
			if end != test.want || len(lines) < test.lines || test.lines < 101 && len(lines) > 100 {
				t.Errorf("%d lines, %+v, want %d, %+v", len(lines), end, test.lines, test.want)
			}
		})
	}
}

func TestItIsToldThatTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]http.HandlerFunc{
		"it fails": func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		},
		"a proxy does not find it": http.NotFound,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, 1, nil)
			n.away = away
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			told := 0
			_, err := Follow(ctx, n.source(), Options{RetryFirst: time.Microsecond, Away: func() {
				if told++; told == 3 {
					cancel()
				}
			}}, func(Line) error { return nil })
			if !errors.Is(err, context.Canceled) || told != 3 {
				t.Errorf("told %d times, %v", told, err)
			}
		})
	}
}

func TestAnotherPodOfTheSameNameIsNotTakenForIt(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, nil)
	n.uid = "another"
	if _, end := read(t, n, Options{}); end.Complete {
		t.Errorf("%+v", end)
	}
}

func TestALogThatIsNotToBeHadIsGivenUpAfterAWhile(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(100, every(time.Millisecond)))
	n.refused = true
	clock := &leaping{now: created}
	lines, end := read(t, n, Options{Clock: clock, RetryFirst: time.Second, RetryMost: 10 * time.Second})
	if len(lines) != 100 || end.Complete {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
	if n.asked < 10 || n.asked > 100 {
		t.Errorf("the log was asked for %d times in two minutes", n.asked)
	}
}

func TestAnErrorOfTheHandlerIsReturned(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(100, every(time.Millisecond)))
	enough := errors.New("enough")
	count := 0
	_, err := Follow(t.Context(), n.source(), Options{}, func(Line) error {
		if count++; count == 7 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || count != 7 {
		t.Errorf("the error is %v after %d lines", err, count)
	}
}

func TestReadingAQuietLogEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(10, every(time.Millisecond)))
	n.hangs = 1
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	count := 0
	_, err := Follow(ctx, n.source(), Options{}, func(Line) error {
		if count++; count == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestAStreamThatMayFollowAReplacedFileIsGivenUp(t *testing.T) {
	t.Parallel()
	entries := progress(2000, every(time.Millisecond))
	for i := range entries {
		entries[i].text += strings.Repeat("x", 1000)
	}
	n := newNode(t, 1, entries)
	n.hangs = 1
	lines, end := read(t, n, Options{Clock: &leaping{now: created}})
	if len(lines) != len(entries) || !end.Complete || end.Lost || n.hangs != 0 {
		t.Errorf("%d lines, %+v, %d hang", len(lines), end, n.hangs)
	}
}

func TestAFileThatWasSkippedWhileReadingWasSlowIsTold(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(1000, func(i int) time.Duration {
		if i == 400 {
			return time.Minute
		}
		return time.Millisecond
	}))
	n.skip = [2]int{300, 600}
	lines, end := read(t, n, Options{Clock: &leaping{now: created}})
	if len(lines) != 700 || !lines[300].Lost || string(lines[300].Text) != "line 600" || !end.Complete || !end.Lost {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
}

func TestAPauseOfTheWorkIsNoLoss(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(100, every(time.Minute)))
	lines, end := read(t, n, Options{})
	if len(lines) != 100 || !end.Complete || end.Lost {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
	if n.asked > 4 {
		t.Errorf("the log was asked for %d times", n.asked)
	}
}

func TestOrdinalsStayWhatTheyAreWhateverTheClock(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Time{
		"a node behind by two days": created.Add(-48 * time.Hour), "a node ahead by ten years": created.AddDate(10, 0, 0),
	} {
		p := newPosition(created)
		last := int64(0)
		for i := range 1000 {
			ordinal := p.add(identify(at.Add(time.Duration(i)), []byte(fmt.Sprint(i)), 1))
			if ordinal <= last || ordinal > 1<<53-1 {
				t.Fatalf("%s: the ordinal is %d after %d", name, ordinal, last)
			}
			last = ordinal
		}
	}
}
