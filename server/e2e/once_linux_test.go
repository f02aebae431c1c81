package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestThreeHundredRequestsWithOneKeyRunTheCommandOnce(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	s := launch(t, dir, "--task", "once=sh -c 'echo ran >> runs'")
	var (
		creating sync.WaitGroup
		gate     = make(chan struct{})
		mu       sync.Mutex
		answers  = map[bool]int{} // by deduplicated
		ids      = map[string]bool{}
	)
	for range 300 {
		creating.Go(func() {
			<-gate
			task, err := c.create(s.url, "the one", "once", `{"n":1}`)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[task.Deduplicated]++
			ids[task.TaskID] = true
		})
	}
	close(gate)
	creating.Wait()
	if answers[false] != 1 || answers[true] != 299 || len(ids) != 1 {
		t.Fatalf("answers %v, ids %v", answers, ids)
	}
	for id := range ids {
		if err := c.follow(t.Context(), s.url, id, "", func(event) {}); err != nil {
			t.Fatal(err)
		}
		if final, err := c.task(s.url, id); err != nil || final.Status != "COMPLETED" || final.Attempt != 1 {
			t.Errorf("row %+v, %v", final, err)
		}
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	runs, err := os.ReadFile(filepath.Join(dir, "runs"))
	if err != nil || strings.Count(string(runs), "ran") != 1 {
		t.Errorf("runs %q, %v", runs, err)
	}
}
