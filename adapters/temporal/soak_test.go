//go:build linux && soak

package temporaladapter

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// soakWorkflows is for a shorter run.
var soakWorkflows = flag.Int("soak-workflows", 1000, "how many workflows the soak test runs")

// Of two workers one is killed every few seconds while a thousand workflows report
// from their code and by steps of their activities. Nothing is there twice, and
// nothing is missing.
func TestSoakAThousandWorkflowsReportOnceWhileTheirWorkersAreKilled(t *testing.T) {
	f, setup := newProcessFixture(t, fixtureOptions{types: map[string]TypeOptions{"mixed": {TaskTimeout: 2 * time.Second}}})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	f.ctx = ctx
	f.reconcile()
	const rounds = 2
	wanted := []string{"STARTED {}"}
	for round := range rounds {
		wanted = append(wanted, `MESSAGE {"message":"round"}`)
		for step := range 2 {
			wanted = append(wanted, fmt.Sprintf(`PROGRESS {"progress":%d}`, 10*round+step))
		}
	}
	wanted = append(wanted, `COMPLETED {"result":2}`)
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
	begun := time.Now()
	tasks := make([]taskbridge.Task, 0, *soakWorkflows)
	for range *soakWorkflows {
		tasks = append(tasks, f.create("mixed", fmt.Sprintf(`{"rounds":%d,"millis":200,"heartbeat":4}`, rounds)))
	}
	wrong := 0
	for _, task := range tasks {
		f.wantResult(task, "2")
		if lines := f.stream(task); !slices.Equal(lines, wanted) {
			wrong++
			t.Errorf("the stream is %q, want %q", lines, wanted)
		}
	}
	close(over)
	killing.Wait()
	t.Logf("%d workflows, of which %d wrong, in %v; %d workers were killed; %d reports with ordinals", len(tasks), wrong,
		time.Since(begun).Round(time.Second), kills, len(tasks)*3*rounds)
}
