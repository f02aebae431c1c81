package main

import (
	"strings"
	"testing"
)

func TestTheBenchmarkMeasuresAllContenders(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), options{samples: 2, tasks: 50, rounds: 1}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bare asynq", "TaskBridge, local", "TaskBridge, remote", "aim"} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("%s is missing:\n%s", name, out.String())
		}
	}
}
