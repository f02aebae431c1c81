package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func (a *API) getTask(c *call) error {
	wait, preferred := preferredWait(c.r.Header)
	task, err := waiting(a, c, wait, func(ctx context.Context, wait time.Duration) (taskbridge.Task, error) {
		return a.opts.Bridge.Query.GetTask(ctx, c.principal, c.taskID, wait)
	})
	if err != nil {
		return err
	}
	if preferred {
		c.w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait/time.Second)))
	}
	return a.answer(c, http.StatusOK, rowOf(task))
}

// maxPreferredWait bounds the preference "wait".
const maxPreferredWait = 60

// preferredWait reads the preference "wait" of RFC 7240, cut to what the server
// grants. Preferences that make no sense are ignored, as that document asks.
func preferredWait(header http.Header) (wait time.Duration, given bool) {
	for _, value := range header.Values("Prefer") {
		for preference := range strings.SplitSeq(value, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, text, ok := strings.Cut(preference, "=")
			if !ok || !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(text), `"`), 10, 31)
			if err != nil {
				return 0, false
			}
			return time.Duration(min(seconds, maxPreferredWait)) * time.Second, true
		}
	}
	return 0, false
}

func (a *API) listTasks(c *call) error {
	request, err := decodeList(c.r)
	if err != nil {
		return err
	}
	ctx, cancel := a.timeLimit(c, 0)
	defer cancel()
	result, err := a.opts.Bridge.Query.ListTasks(ctx, c.principal, request)
	if err != nil {
		return err
	}
	rows := make([]taskRow, len(result.Tasks))
	for i, task := range result.Tasks {
		rows[i] = rowOf(task)
		rows[i].Input, rows[i].Result = nil, nil
	}
	return a.answer(c, http.StatusOK, struct {
		Tasks      []taskRow `json:"tasks"`
		NextCursor string    `json:"nextCursor,omitempty"`
	}{rows, result.NextCursor})
}

// decodeList reads the query of a list. A filter that is given more than once
// selects what any of its values does.
func decodeList(r *http.Request) (request taskbridge.ListTasksRequest, err error) {
	q, err := parseQuery(r)
	if err != nil {
		return request, err
	}
	if request.Limit, err = q.number("limit", 50, 1, 200); err != nil {
		return request, err
	}
	for _, value := range q.values["status"] {
		status := taskbridge.TaskStatus(value)
		if !status.Valid() {
			return request, outOfRange("status", "must be ACCEPTED, RUNNING, COMPLETED, FAILED or CANCELLED")
		}
		request.Statuses = append(request.Statuses, status)
	}
	request.Types = q.values["taskType"]
	request.Cursor = q.text("cursor")
	return request, nil
}
