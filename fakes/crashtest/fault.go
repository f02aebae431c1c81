package crashtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// runFaults plays each scenario with one call that fails, before or after its
// effect, in a process that lives on. Whoever made the call makes it again, and
// what comes out must be what comes out without the fault, to the last event.
func runFaults(t *testing.T, h Harness) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			var steps []fakes.Call
			var want []string
			t.Run("without a fault", func(t *testing.T) {
				steps, want = playThrough(t, h, s, 0, fakes.Fault{})
			})
			for k := 1; k <= len(steps); k++ {
				for _, fault := range []moment{{"before", fakes.FailBefore(nil)}, {"after", fakes.FailAfter(nil)}} {
					t.Run(fmt.Sprintf("%s call %d, %s", fault.name, k, steps[k-1].Op), func(t *testing.T) {
						_, got := playThrough(t, h, s, k, fault.crash)
						if !slices.Equal(got, want) {
							t.Errorf("the fault has changed what comes out:\n%s\nwithout it:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
						}
					})
				}
			}
		})
	}
}

// playThrough plays a scenario with a fault at its k-th call, brings it to its
// end and returns the play's calls and what the stream holds then.
func playThrough(t *testing.T, h Harness, s scenario, k int, fault fakes.Fault) (steps []fakes.Call, stream []string) {
	t.Helper()
	w, r := newWorld(t, h), newRuntime()
	r.rejects = s.rejects
	if s.before != nil {
		s.before(w, r)
	}
	p := w.start(r.in)
	p.faulty = k > 0
	if p.faulty {
		p.faults.OnStep(k, fault)
	}
	var told told
	if err := s.play(p, r, &told); err != nil {
		t.Fatalf("play: %v", err)
	}
	steps = p.faults.Steps()
	p.faults.Clear()
	result, err := p.create()
	mustNotBe(t, err, "create again")
	if !result.Deduplicated || told.created != "" && result.Task.ID != told.created {
		t.Errorf("the same key gives task %s, deduplicated %v; it made %s", result.Task.ID, result.Deduplicated, told.created)
	}
	for range 40 {
		p.reconcile()
		aftermaths()[0].act(p, r)
		if w.ended() {
			break
		}
		w.clock.Advance(overLease)
	}
	row, events := p.checkEnd(result.Task.ID)
	if told.ended != "" && row.Status != told.ended {
		t.Errorf("a worker was told that the task is %s, it is %s", told.ended, row.Status)
	}
	if s.check != nil {
		s.check(t, row, events, told)
	}
	r.check(t, row)
	p.checkRefused(row.ID)
	p.checkStaysEnded(row.ID)
	return steps, contents(events)
}

// contents is what a stream holds, times left out.
func contents(events []taskbridge.Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, fmt.Sprintf("%d %s %s", e.Attempt, e.Type, e.Payload))
	}
	return list
}
