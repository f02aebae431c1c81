package sqlitestore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// parallel has 64 callers share the b.N operations and reports how many of them
// a transaction took.
func parallel(b *testing.B, s *Store, f func(caller int, n int64) error) {
	b.Helper()
	var before, after int
	batches := func(n *int) {
		if err := do(s, func(w *writer) error { *n = w.batches; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	batches(&before)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	var next atomic.Int64
	for caller := range 64 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if err := f(caller, n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	batches(&after)
	b.ReportMetric(float64(b.N)/float64(max(1, after-before)), "ops/batch")
}

func openBenchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.Context(), Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func BenchmarkAppend(b *testing.B) {
	s := openBenchStore(b)
	var ordinals [64]int64
	parallel(b, s, func(caller int, _ int64) error {
		ordinals[caller]++
		_, err := s.AppendEvent(context.Background(), message(fmt.Sprintf("stream-%d", caller), ordinals[caller]))
		return err
	})
}

// BenchmarkCreateAndSubmit writes a row and then that its executor has the task,
// as every creation does.
func BenchmarkCreateAndSubmit(b *testing.B) {
	s := openBenchStore(b)
	parallel(b, s, func(caller int, n int64) error {
		now := time.Now()
		task := newTask(fmt.Sprintf("client-%d-%d", caller, n))
		task.CreatedAt, task.Due.Submission, task.Submission.State = now, now.Add(time.Minute), taskbridge.SubmissionClaimed
		task, _, err := s.CreateTask(context.Background(), task)
		if err != nil {
			return err
		}
		task.Submission.State = taskbridge.SubmissionRecorded
		task.Due = taskbridge.Due{Inspection: now.Add(time.Minute)}
		_, err = s.UpdateTask(context.Background(), task)
		return err
	})
}

func BenchmarkReadEvents(b *testing.B) {
	s := openBenchStore(b)
	for n := int64(1); n <= 500; n++ {
		if _, err := s.AppendEvent(b.Context(), message("stream", n)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if events, err := s.ReadEvents(b.Context(), "stream", 0, 500); err != nil || len(events) != 500 {
			b.Fatal(len(events), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/event")
}
