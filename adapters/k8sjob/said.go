package k8sjob

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// said is what a pod's output said beside its reports. A stub until follow.go is
// there.
type said struct {
	Result   json.RawMessage
	Fail     *taskbridge.Failure
	Tail     string
	Lost     bool
	Complete bool
}

func (e *Executor) follow(context.Context, *corev1.Pod, string, TypeOptions, taskbridge.NumberedRun) (said, error) {
	return said{}, nil
}
