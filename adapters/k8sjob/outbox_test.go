package k8sjob

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// gatedRun records a batch whenever the test lets it.
type gatedRun struct {
	taskbridge.NumberedRun
	permits chan error
	batches []int
	last    int64
	t       *testing.T
}

func (r *gatedRun) Report(_ context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	if err := <-r.permits; err != nil {
		return taskbridge.Reported{}, err
	}
	r.batches = append(r.batches, len(reports))
	for _, report := range reports {
		if report.Ordinal != r.last+1 {
			r.t.Errorf("report %d comes after %d", report.Ordinal, r.last)
		}
		r.last = report.Ordinal
	}
	return taskbridge.Reported{}, nil
}

func message(ordinal int64, text string) item {
	return item{report: taskbridge.Report{Ordinal: ordinal, Message: &taskbridge.Message{Text: text}}, bytes: len(text)}
}

func TestReadingWaitsWhileRecordingIsSlow(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"short": "x", "long": strings.Repeat("x", 60_000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				run := &gatedRun{permits: make(chan error), t: t}
				box := newOutbox(run, nil, 1, taskbridge.SystemClock{}, slog.New(slog.DiscardHandler))
				var workers sync.WaitGroup
				workers.Go(func() {
					if err := box.send(t.Context()); err != nil {
						t.Error(err)
					}
				})
				const n = 5000
				workers.Go(func() {
					for i := range int64(n) {
						if err := box.put(t.Context(), message(i+1, text)); err != nil {
							t.Error(err)
						}
					}
					box.close()
				})
				for {
					synctest.Wait()
					box.mu.Lock()
					waiting, bytes := len(box.items), box.bytes
					box.mu.Unlock()
					if waiting > maxItems || bytes > maxBytes {
						t.Fatalf("%d reports of %d bytes wait", waiting, bytes)
					}
					if run.last == n {
						break
					}
					run.permits <- nil
				}
				workers.Wait()
				if sent := len(run.batches); name == "short" && sent > n/maxBatch+2 {
					t.Errorf("%d reports were recorded by %d calls", n, sent)
				}
			})
		})
	}
}

func TestWhoeverWaitsForRoomIsToldThatNothingMoreCanBeRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		run := &gatedRun{permits: make(chan error), t: t}
		box := newOutbox(run, nil, 1, taskbridge.SystemClock{}, slog.New(slog.DiscardHandler))
		var workers sync.WaitGroup
		var put error
		workers.Go(func() {
			for i := int64(1); put == nil; i++ {
				put = box.put(t.Context(), message(i, "x"))
			}
		})
		workers.Go(func() {
			if err := box.send(t.Context()); !errors.Is(err, taskbridge.ErrStaleAttempt) {
				t.Errorf("sending ends with %v", err)
			}
		})
		synctest.Wait()
		run.permits <- taskbridge.ErrStaleAttempt
		workers.Wait()
		if !errors.Is(put, taskbridge.ErrStaleAttempt) {
			t.Errorf("the error is %v", put)
		}
	})
}
