package k8sjob

import (
	"cmp"
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/internal/podlog"
)

// follow reads a pod's output from the first line that is there to its end, and
// records what it reports as the attempt run. Several processes may do so at once, or
// one after the other: the reports have ordinals that come from the lines, so each is
// recorded once.
//
// Beside an error of ctx it returns errors of the run that say that nothing more can be
// recorded ([taskbridge.ErrTaskFinished] and the like), with what was said so far.
// That a store is away is waited out.
func (e *Executor) follow(ctx context.Context, pod *corev1.Pod, container string, options TypeOptions, run taskbridge.NumberedRun) (said, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	task := run.Task()
	logger := e.Logger.With("taskId", task.ID, "pod", pod.Name)
	box := newOutbox(run, e.notices, pod.CreationTimestamp.Unix(), e.Clock, logger)
	l := &listener{outbox: box, plain: options.PlainLines, tail: tail{limit: options.TailLines}}
	var sending sync.WaitGroup
	sending.Go(func() {
		if box.send(ctx) != nil {
			cancel() // a quiet log would be read on
		}
	})
	var away func()
	if heard, is := run.(*heardRun); is {
		away = heard.hold
	}
	end, err := podlog.Follow(ctx, podlog.Source{
		Client: e.Client, Namespace: pod.Namespace, Pod: pod.Name, UID: pod.UID, Container: container, Created: pod.CreationTimestamp.Time,
	}, podlog.Options{Patience: e.OutputTimeout, Away: away, Clock: e.Clock, Logger: logger}, func(line podlog.Line) error { return l.line(ctx, line) })
	if err == nil {
		err = l.end(ctx, end)
	}
	if err != nil {
		cancel() // nothing more is to be recorded, or can be
	}
	box.close()
	sending.Wait()
	l.Tail = l.tail.String()
	if err == nil || errors.Is(err, context.Canceled) {
		err = cmp.Or(box.failure(), err)
	}
	return l.said, err
}
