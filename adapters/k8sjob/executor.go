package k8sjob

import (
	"context"
	"errors"
	"fmt"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Executor runs tasks as Jobs. It is safe for concurrent use, and several servers
// may share a namespace and an instance's name. The host closes it.
type Executor struct {
	Options // with its defaults: Types too

	templates map[string]*jobTemplate
	notices   taskbridge.NumberedNoticer
	watcher   *watcher
}

// New makes an executor and begins to watch. It does not wait for the cluster: see
// [Executor.CheckHealth] and [Executor.CheckTemplates].
func New(opts Options) (*Executor, error) {
	opts, templates, err := opts.checked()
	if err != nil {
		return nil, fmt.Errorf("k8sjob: %w", err)
	}
	e := &Executor{Options: opts, templates: templates, notices: opts.Lifecycle.(taskbridge.NumberedNoticer)}
	e.watcher = newWatcher(e)
	return e, nil
}

// Close ends the watching and waits for it. Jobs go on where they are.
func (e *Executor) Close() error {
	e.watcher.close()
	return nil
}

var errNotYet = errors.New("k8sjob: not there yet")

// SubmitTask is on its way.
func (e *Executor) SubmitTask(context.Context, taskbridge.Task) error { return errNotYet }

// RequestCancellation is on its way.
func (e *Executor) RequestCancellation(context.Context, taskbridge.Task, string) error {
	return errNotYet
}
