//go:build linux

package process

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, or, as the command of a task, one of the helpers.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		os.Exit(runHelper(os.Args[2], os.Args[3:]))
	}
	status := m.Run()
	if leak := leakedGoroutines(); leak != "" && status == 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", leak)
		status = 1
	}
	os.Exit(status)
}

// leakedGoroutines waits for every goroutine but this one to end and returns
// the stacks of those that do not.
func leakedGoroutines() string {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var left string
	for range 500 {
		buf := make([]byte, 1<<20)
		left = ""
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if !strings.Contains(stack, "TestMain(") && strings.Contains(stack, "taskbridge/") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		<-tick.C
	}
	return left
}
