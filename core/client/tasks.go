package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// CreateRequest is a wish for a task.
type CreateRequest struct {
	// ClientRequestID is the idempotency key, 1 to 255 bytes without control
	// characters: however often the same key is sent with the same type and
	// input, there is one task. Empty: a random one is made, which is the same
	// for all tries of one call.
	ClientRequestID string
	// TaskType selects the executor.
	TaskType string
	// Input is the work's input: whatever encodes as a JSON object, a
	// json.RawMessage as it is; nil means {}.
	Input any
	// Metadata is kept with the task and given back; as Input.
	Metadata any
}

// Created is the answer to a creation.
type Created struct {
	TaskID string                `json:"taskId"`
	Status taskbridge.TaskStatus `json:"status"`
	// ClientRequestID is the key in use, whether it was given or made.
	ClientRequestID string `json:"clientRequestId"`
	// Deduplicated: the task was there already, possibly from an earlier try of
	// the same call whose answer was lost.
	Deduplicated bool `json:"deduplicated"`
}

// Create makes a task, or gives back the one that the same key made before. An
// error leaves ClientRequestID set, to go on with the same key later; where it is
// no [*Error], whether there is a task is not known.
func (c *Client) Create(ctx context.Context, wish CreateRequest) (Created, error) {
	key := wish.ClientRequestID
	if key == "" {
		key = rand.Text()
	}
	created, err := c.create(ctx, key, wish)
	if err != nil {
		return Created{ClientRequestID: key}, err
	}
	return created, nil
}

func (c *Client) create(ctx context.Context, key string, wish CreateRequest) (Created, error) {
	body, err := json.Marshal(struct {
		ClientRequestID string `json:"clientRequestId"`
		TaskType        string `json:"taskType"`
		Input           any    `json:"input,omitempty"`
		Metadata        any    `json:"metadata,omitempty"`
	}{key, wish.TaskType, present(wish.Input), present(wish.Metadata)})
	if err != nil {
		return Created{}, fmt.Errorf("create a task: %w", err)
	}
	var created Created
	err = c.persist(ctx, "create a task", func() error {
		created = Created{}
		err := c.once(ctx, request{method: http.MethodPost, body: body}, &created, http.StatusCreated, http.StatusOK)
		switch {
		case err != nil:
			return err
		case !taskbridge.ValidTaskID(created.TaskID) || created.ClientRequestID != key:
			return unexpected(http.StatusOK, "the answer names no task, or another key")
		}
		return nil
	})
	return created, err
}

// present makes an empty raw message absent, which would else be null.
func present(value any) any {
	if raw, ok := value.(json.RawMessage); ok && len(raw) == 0 {
		return nil
	}
	return value
}

// Task is a task's row as the server shows it. Times are UTC, zero where
// something did not happen.
type Task struct {
	TaskID          string                `json:"taskId"`
	ClientRequestID string                `json:"clientRequestId"`
	TaskType        string                `json:"taskType"`
	Status          taskbridge.TaskStatus `json:"status"`
	// Input and Metadata are JSON objects. Input is nil in a list.
	Input     json.RawMessage `json:"input,omitempty"`
	Metadata  json.RawMessage `json:"metadata"`
	CreatedAt time.Time       `json:"createdAt"`
	UpdatedAt time.Time       `json:"updatedAt"`
	// Attempt is the newest attempt; 0 before the first.
	Attempt               int64     `json:"attempt"`
	CancellationRequested bool      `json:"cancellationRequested"`
	CancelReason          string    `json:"cancelReason,omitempty"`
	StartedAt             time.Time `json:"startedAt,omitzero"`
	FinishedAt            time.Time `json:"finishedAt,omitzero"`
	// Result is any JSON, of a COMPLETED task; nil in a list.
	Result json.RawMessage `json:"result,omitempty"`
	// Failure is that of a FAILED task, else nil.
	Failure *taskbridge.Failure `json:"failure,omitempty"`
	// Suspension is there while the work waits for somebody.
	Suspension *taskbridge.Suspension `json:"suspension,omitempty"`
}

// Get returns the task's row.
func (c *Client) Get(ctx context.Context, taskID string) (Task, error) {
	var task Task
	err := c.persist(ctx, "get the task", func() (err error) {
		task, err = c.get(ctx, taskID, 0)
		return err
	})
	return task, err
}

func (c *Client) get(ctx context.Context, taskID string, wait time.Duration) (Task, error) {
	path, err := taskPath(taskID, "")
	if err != nil {
		return Task{}, err
	}
	q := request{method: http.MethodGet, path: path, taskID: taskID, wait: wait}
	if wait > 0 {
		q.header = http.Header{"Prefer": {fmt.Sprintf("wait=%d", int(wait/time.Second))}}
	}
	var task Task
	if err := c.once(ctx, q, &task, http.StatusOK); err != nil {
		return Task{}, err
	}
	if task.TaskID != taskID || !task.Status.Valid() {
		return Task{}, unexpected(http.StatusOK, "the answer is not the task's row")
	}
	return task, nil
}

// waitStep is how long one request waits: less than what proxies commonly allow.
const waitStep = 25 * time.Second

// Wait returns the row once the task has ended, however it ended. It goes on
// through outages of the server, until ctx ends or Retry.MaxOutage is reached.
func (c *Client) Wait(ctx context.Context, taskID string) (Task, error) {
	pace := c.newPace("wait for the task")
	for {
		asked := c.clock.Now()
		task, err := c.get(ctx, taskID, waitStep)
		switch {
		case err == nil && task.Status.Terminal():
			return task, nil
		case err == nil:
			pace.answered()
			err = pace.unless(ctx, asked, waitStep)
		default:
			err = pace.failed(ctx, err)
		}
		if err != nil {
			return Task{}, err
		}
	}
}

// ListFilter selects tasks. The zero value selects all.
type ListFilter struct {
	// Statuses and Types select what any of their values does; empty: all.
	Statuses []taskbridge.TaskStatus
	Types    []string
	// PageSize is 1 to 200; 0 means the server's default.
	PageSize int
}

// Page is a part of a list. NextCursor is empty on the last.
type Page struct {
	Tasks      []Task `json:"tasks"`
	NextCursor string `json:"nextCursor"`
}

// ListPage returns one page of the caller's tasks, newest first, without Input
// and Result. cursor is the NextCursor of the page before, empty for the first.
func (c *Client) ListPage(ctx context.Context, filter ListFilter, cursor string) (Page, error) {
	query := url.Values{"taskType": filter.Types}
	for _, status := range filter.Statuses {
		query.Add("status", string(status))
	}
	if filter.PageSize != 0 {
		query.Set("limit", strconv.Itoa(filter.PageSize))
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	var page Page
	err := c.persist(ctx, "list tasks", func() error {
		page = Page{}
		err := c.once(ctx, request{method: http.MethodGet, query: query}, &page, http.StatusOK)
		if err == nil && page.Tasks == nil {
			return unexpected(http.StatusOK, "the answer is not a list of tasks")
		}
		return err
	})
	return page, err
}

// List yields the caller's tasks, newest first, without Input and Result, page
// after page. It ends after the first error. Tasks that are made meanwhile are
// not among them.
func (c *Client) List(ctx context.Context, filter ListFilter) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		for cursor := ""; ; {
			page, err := c.ListPage(ctx, filter, cursor)
			if err != nil {
				yield(Task{}, err)
				return
			}
			for _, task := range page.Tasks {
				if !yield(task, nil) {
					return
				}
			}
			switch {
			case page.NextCursor == "":
				return
			case len(page.Tasks) == 0, page.NextCursor == cursor: // and so might it be for ever
				err := unexpected(http.StatusOK, "a page of the list leads nowhere")
				yield(Task{}, fmt.Errorf("list tasks: %w", err))
				return
			}
			cursor = page.NextCursor
		}
	}
}

// CancelStatus is the answer to a wish to cancel.
type CancelStatus string

// The answers.
const (
	// CancellationRequested: the wish is durable; the task's end confirms it.
	CancellationRequested CancelStatus = "CANCELLATION_REQUESTED"
	// AlreadyTerminal: the task had ended.
	AlreadyTerminal CancelStatus = "ALREADY_TERMINAL"
)

// Cancel asks for the task to stop. It does not wait for that. The reason may be
// empty; the first that is given counts.
func (c *Client) Cancel(ctx context.Context, taskID, reason string) (CancelStatus, error) {
	path, err := taskPath(taskID, "/cancel")
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(struct {
		Reason string `json:"reason,omitempty"`
	}{reason})
	if err != nil {
		return "", err
	}
	q := request{method: http.MethodPost, path: path, body: body, taskID: taskID}
	var answer struct {
		TaskID string       `json:"taskId"`
		Status CancelStatus `json:"status"`
	}
	err = c.persist(ctx, "cancel the task", func() error {
		if err := c.once(ctx, q, &answer, http.StatusAccepted); err != nil {
			return err
		}
		if answer.TaskID != taskID || answer.Status != CancellationRequested && answer.Status != AlreadyTerminal {
			return unexpected(http.StatusAccepted, "the answer is not that to a cancellation")
		}
		return nil
	})
	return answer.Status, err
}
