//go:build soak

package bench_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/taskbridge/taskbridge/server/internal/bench"
)

// TestSoakAMillionFinishedTasks has the benchmark measure the growth to the end
// of the retention. It is a program of its own, without the race detector, whose
// price is not the same in both stores.
func TestSoakAMillionFinishedTasks(t *testing.T) {
	dir := t.TempDir()
	program, results := filepath.Join(dir, "taskbridge-bench"), filepath.Join(dir, "bench.json")
	run := func(name string, args ...string) {
		t.Helper()
		command := exec.CommandContext(t.Context(), name, args...)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		if err := command.Run(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	run("go", "build", "-o", program, "../../cmd/taskbridge-bench")
	// It checks by itself that what is kept is whole and that the rest is gone.
	run(program, "-only", "growth", "-tasks", "1000000", "-retire-for", "2h", "-samples", "9", "-json", results)

	text, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil || report.Growth == nil {
		t.Fatalf("the report is %s, %v", text, err)
	}
	for _, o := range report.Growth.Operations {
		if o.Aim > 0 && !o.Met {
			t.Errorf("%s: %.0f µs with a million tasks and %.0f µs with a thousand, %.2f times as long, want %.2f at most",
				o.Name, o.Large.P50, o.Small.P50, o.Ratio, o.Aim)
		}
		// Nothing is to grow with the number of rows, wherever it is measured.
		if o.Ratio > 4 {
			t.Errorf("%s (%s) takes %.2f times as long with a thousand times as many tasks", o.Name, o.Level, o.Ratio)
		}
	}
	r := report.Growth.Retention
	if !r.Complete || r.Retired < 490_000 || r.Retired > 510_000 || r.Kept+r.Retired != 1_000_000 {
		t.Errorf("retention took %d tasks and left %d, complete: %t", r.Retired, r.Kept, r.Complete)
	}
	// The tasks that were created meanwhile take the place of some that are gone.
	if r.BytesAfter > r.BytesBefore*4/5 {
		t.Errorf("the file had %d bytes before half of it was deleted, and %d after", r.BytesBefore, r.BytesAfter)
	}
	if r.CreatesWith.Calls == 0 || r.CreatesWith.P99 > 10e6 {
		t.Errorf("the creates beside the retention: %+v", r.CreatesWith)
	}
}
