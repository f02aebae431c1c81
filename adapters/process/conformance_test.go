//go:build linux

package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/conformance"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestTheExecutorConforms(t *testing.T) {
	for name, stores := range map[string]func(*testing.T) taskbridge.Stores{
		"atomic": nil,
		"separate": func(*testing.T) taskbridge.Stores {
			return taskbridge.Stores{Tasks: memory.NewTasks(), Events: memory.NewEvents()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.RunExecutor(t, conformance.ExecutorHarness{
				NewStores: stores,
				New: func(t *testing.T, _ taskbridge.Stores, lifecycle taskbridge.TaskLifecycle) conformance.Runtime {
					marks := t.TempDir()
					begins := func(then string) Command {
						command := script(`echo begun >> "$MARKS/$TASKBRIDGE_TASK_ID"; ` + then)
						command.Env = []string{"MARKS=" + marks}
						return command
					}
					var started sync.Map
					hook := &hookLifecycle{TaskLifecycle: lifecycle, started: func(taskID string) { started.Store(taskID, true) }}
					const places = 2
					executor, err := New(Options{
						Lifecycle:  hook,
						InstanceID: "instance",
						StateDir:   filepath.Join(t.TempDir(), "state"),
						MaxRunning: places,
						Commands: map[string]Command{
							"echo": begins(`printf '::taskbridge {"result":%s}' "$TASKBRIDGE_INPUT"`),
							"fail": begins(`exit 3`),
							"wait": begins(`exec sleep 1000`),
						},
					})
					must(t, err)
					t.Cleanup(func() { must(t, executor.Close(context.Background())) })
					return conformance.Runtime{
						Executor: executor,
						Places:   places,
						Begun: func(taskID string) int {
							data, err := os.ReadFile(filepath.Join(marks, taskID))
							if !errors.Is(err, fs.ErrNotExist) {
								must(t, err)
							}
							begun := bytes.Count(data, []byte("begun"))
							if _, ok := started.Load(taskID); ok && begun == 0 {
								return 1 // cancelled before its first word
							}
							return begun
						},
					}
				},
				Completes: conformance.Work{Type: "echo", Input: json.RawMessage(`{"a":[1,"$x"]}`), Result: json.RawMessage(`{"a":[1,"$x"]}`)},
				Fails:     conformance.Work{Type: "fail", Code: CodeExitStatus},
				RunsOn:    conformance.Work{Type: "wait"},
				Rejected:  conformance.Work{Type: "nonsense"},
			})
		})
	}
}
