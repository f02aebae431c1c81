package memory_test

import (
	"fmt"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// filledTasks makes a registry with n rows of one owner, created one after the
// other, each due at a time of its own.
func filledTasks(b *testing.B, n int) *memory.Tasks {
	b.Helper()
	tasks := memory.NewTasks()
	for i := range n {
		key := fmt.Sprintf("key-%d", i)
		task := taskbridge.Task{
			ID: taskbridge.NewTaskID("owner", key), Owner: "owner", ClientRequestID: key, Status: taskbridge.StatusAccepted,
			CreatedAt: time.UnixMicro(int64(i)), Due: taskbridge.Due{Inspection: time.Unix(int64(i*7919%n), 0)},
		}
		if _, _, err := tasks.CreateTask(b.Context(), task); err != nil {
			b.Fatal(err)
		}
	}
	return tasks
}

// What it costs to make n rows, and then one page, one round of due rows and one
// update among them: none of it may grow like n.
func BenchmarkTasks(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("create/rows=%d", n), func(b *testing.B) {
			for b.Loop() {
				filledTasks(b, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
		tasks := filledTasks(b, n)
		all, err := tasks.ListTasks(b.Context(), taskbridge.TaskQuery{Owner: "owner", Limit: n})
		if err != nil {
			b.Fatal(err)
		}
		middle := all[n/2]
		b.Run(fmt.Sprintf("page/rows=%d", n), func(b *testing.B) {
			query := taskbridge.TaskQuery{Owner: "owner", Limit: 50, After: taskbridge.ListCursor{CreatedAt: middle.CreatedAt, TaskID: middle.ID}}
			for b.Loop() {
				if _, err := tasks.ListTasks(b.Context(), query); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("due/rows=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := tasks.DueTasks(b.Context(), taskbridge.DueInspection, time.Unix(int64(n), 0), 200); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("update/rows=%d", n), func(b *testing.B) {
			row := middle
			for i := 0; b.Loop(); i++ {
				row.Due.Inspection = time.Unix(int64(i*7919%n), 0)
				var err error
				if row, err = tasks.UpdateTask(b.Context(), row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
