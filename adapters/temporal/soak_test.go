//go:build linux && soak

package temporaladapter

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Of two workers one is killed every few seconds while a thousand workflows run.
// What is exact is start and end; a report may come twice, where a worker was
// killed between it and the history (README.md), and their number is logged.
func TestSoakAThousandWorkflowsEndWhileTheirWorkersAreKilled(t *testing.T) {
	f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"slow": {TaskTimeout: 2 * time.Second}}})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	f.ctx = ctx
	f.reconcile()
	const n, steps = 1000, 4
	tasks := make([]taskbridge.Task, 0, n)
	over := make(chan struct{})
	var killing sync.WaitGroup
	kills := 0
	killing.Go(func() {
		workers := []*workerProcess{startWorker(t, setup), startWorker(t, setup)}
		tick := time.NewTicker(4 * time.Second)
		defer tick.Stop()
		for ; ; kills++ {
			select {
			case <-over:
				return
			case <-tick.C:
				i := kills % len(workers)
				workers[i].kill()
				workers[i] = startWorker(t, setup)
			}
		}
	})
	for range n {
		tasks = append(tasks, f.create("slow", `{"steps":4,"millis":200}`))
	}
	again := 0
	for _, task := range tasks {
		f.wantResult(task, "4")
		lines := f.stream(task)
		seen, last := map[string]int{}, ""
		for _, line := range lines[1 : len(lines)-1] {
			if !strings.HasPrefix(line, "PROGRESS ") {
				t.Errorf("the stream is %q", lines)
			}
			if seen[line]++; seen[line] > 1 {
				again++
				if line != last {
					t.Errorf("progress goes back: %q", lines)
				}
			}
			last = line
		}
		if len(seen) != steps || !strings.HasPrefix(lines[0], "STARTED") || strings.Count(f.types(task), "STARTED") != 1 {
			t.Errorf("the stream is %q", lines)
		}
	}
	close(over)
	killing.Wait()
	t.Logf("%d workflows ended, %d workers were killed, %d of %d reports came twice", n, kills, again, n*steps)
}
