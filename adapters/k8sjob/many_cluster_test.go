package k8sjob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// A node takes 110 pods by default: the others wait, and are told so. It is not
// parallel, since it leaves no room to others.
func TestClusterTwoHundredJobsAtOnceHaveTwoHundredRightEnds(t *testing.T) {
	const tasks, limit = 200, 40 * time.Minute
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	c.ctx = ctx
	types := map[string]TypeOptions{
		"result": {Template: c.template([]string{"result=$(TASKBRIDGE_INPUT)"}, nil)},
		"exit":   {Template: c.template([]string{"progress=3", "exit=3"}, nil)},
		"fail":   {Template: c.template([]string{"fail=NO_STOCK", "exit=1"}, nil)},
		"long":   {Template: c.template([]string{"progress=20,100ms", "result=$(TASKBRIDGE_INPUT)"}, nil)},
	}
	for name, options := range types {
		options.PendingTimeout = limit
		types[name] = options
	}
	b := c.newBridge(bridgeOptions{types: types, change: func(o *Options) { o.CreateTimeout = 20 * time.Second }})
	names := []string{"result", "exit", "fail", "long"}
	begun := time.Now()
	created := make([]taskbridge.Task, tasks)
	for i := range created {
		created[i] = b.createOf(names[i%len(names)], fmt.Sprintf(`{"n":%d}`, i))
	}
	t.Logf("%d tasks created in %s", tasks, time.Since(begun).Round(time.Millisecond))
	counted := map[string]int{}
	for i, task := range created {
		row := b.row(task)
		for !row.Status.Terminal() {
			var err error
			row, err = b.Query.GetTask(ctx, owner, task.ID, 10*time.Second)
			must(t, errors.Join(err, ctx.Err()))
		}
		failure, _ := row.Failure()
		result, _ := row.Result()
		end := strings.TrimSpace(fmt.Sprintf("%s %s %s", row.Status, failure.Code, result))
		progress := map[string]int{"exit": 3, "long": 20}[task.Type]
		want := map[string]string{"exit": "FAILED " + CodeExited, "fail": "FAILED NO_STOCK"}[task.Type]
		last := "FAILED"
		if want == "" {
			want, last = fmt.Sprintf(`COMPLETED  {"n":%d}`, i), "COMPLETED"
		}
		if end != want || row.Attempt != 1 {
			t.Errorf("task %d ended with %q in attempt %d, want %q", i, end, row.Attempt, want)
		}
		// It may have waited for its turn: that is told once.
		b.wantStreamLike(task, "(MESSAGE )?STARTED"+strings.Repeat(" PROGRESS", progress)+" "+last)
		counted[last]++
	}
	t.Logf("%v after %s", counted, time.Since(begun).Round(time.Second))
	until(t, "all Jobs are marked as recorded", func() bool {
		jobs, err := c.client.BatchV1().Jobs(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelRecorded + "=true"})
		return err == nil && len(jobs.Items) == tasks
	})
	jobs, err := c.client.BatchV1().Jobs(c.namespace).List(ctx, metav1.ListOptions{})
	must(t, err)
	pods, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{})
	must(t, err)
	if len(jobs.Items) != tasks || len(pods.Items) != tasks {
		t.Errorf("there are %d Jobs and %d pods, want %d of each", len(jobs.Items), len(pods.Items), tasks)
	}
}
