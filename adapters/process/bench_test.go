//go:build linux

package process

import (
	"os/exec"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// BenchmarkTask is one task a round whose command does nothing, from its
// creation to its end. BenchmarkCommand is the ceiling: the command alone.
func BenchmarkTask(b *testing.B) {
	f := newFixture(b, map[string]Command{"x": {Path: "/bin/true"}})
	for b.Loop() {
		task := f.create("x", `{}`)
		row, err := f.bridge.Query.GetTask(f.ctx, owner, task.ID, patience)
		if err != nil || row.Status != taskbridge.StatusCompleted {
			b.Fatalf("%s, %v", row.Status, err)
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	for b.Loop() {
		must(b, exec.Command("/bin/true").Run())
	}
}
