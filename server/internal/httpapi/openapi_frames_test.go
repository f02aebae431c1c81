package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/openapi/openapitest"
)

// lives are tasks of every course, which have every event there is.
var lives = map[string]struct {
	types []string
	live  func(context.Context, taskbridge.Run) error
}{
	"completed": {
		[]string{"TASK_STARTED", "TASK_PROGRESS", "TASK_PROGRESS", "TASK_MESSAGE", "TASK_MESSAGE", "TASK_SUSPENDED", "TASK_SUSPENDED", "TASK_COMPLETED"},
		func(ctx context.Context, run taskbridge.Run) error {
			expires := time.Now().Add(time.Hour)
			return inTurn(
				func() error { return run.Progress(ctx, taskbridge.Progress{Percent: 0.5}) },
				func() error {
					return run.Progress(ctx, taskbridge.Progress{Percent: 100, Stage: "päck", Message: "\u2028 and \"quotes\""})
				},
				func() error {
					return run.Message(ctx, taskbridge.Message{Text: strings.Repeat("long ", 5000), Level: taskbridge.LevelDebug})
				},
				func() error { return run.Token(ctx, "token") },
				func() error {
					return run.Suspend(ctx, taskbridge.Suspension{
						SuspendID: "s1", Kind: taskbridge.SuspendSystemPaused, ReasonCode: "R", AllowedActions: []string{"GO"}, SchemaVersion: 1,
					})
				},
				func() error {
					return run.Suspend(ctx, taskbridge.Suspension{
						SuspendID: "s2", Kind: taskbridge.SuspendUserAction, ReasonCode: "R", AllowedActions: []string{"YES", "NO"}, SchemaVersion: 7,
						ExpiresAt: &expires, UIHints: json.RawMessage(`{"title":"t"}`), Interaction: json.RawMessage(`{"form":[1]}`),
					})
				},
				func() error {
					return run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`[null,{"a":1.5}]`)})
				},
			)
		},
	},
	"completed without a result": {
		[]string{"TASK_STARTED", "TASK_COMPLETED"},
		func(ctx context.Context, run taskbridge.Run) error { return run.Complete(ctx, taskbridge.Completion{}) },
	},
	"completed with too much": {
		[]string{"TASK_STARTED", "TASK_COMPLETED"},
		func(ctx context.Context, run taskbridge.Run) error {
			return run.Complete(ctx, taskbridge.Completion{Result: json.RawMessage(`"` + strings.Repeat("x", 300<<10) + `"`)})
		},
	},
	"failed": {
		[]string{"TASK_STARTED", "TASK_FAILED"},
		func(ctx context.Context, run taskbridge.Run) error {
			return run.Fail(ctx, taskbridge.Failure{Code: "BROKEN", Message: "m", Retryable: true})
		},
	},
	"cancelled": {
		[]string{"TASK_STARTED", "TASK_CANCELLED"},
		func(ctx context.Context, run taskbridge.Run) error { return run.Cancelled(ctx, "more") },
	},
}

func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// session subscribes over a WebSocket, with what the document calls a subscribe
// frame, and returns all frames until it is closed, each as the document says.
func (f *fixture) session(c *openapitest.Contract, subscribe string) (frames [][]byte) {
	f.Helper()
	if err := c.CheckSchema("Subscribe", []byte(subscribe)); err != nil {
		f.Errorf("%s: %v", subscribe, err)
	}
	s := f.connect()
	s.send(subscribe)
	for {
		_, frame, err := s.conn.Read(s.ctx)
		if err != nil {
			if code := websocket.CloseStatus(err); code != closeEnded {
				f.Errorf("closed %d: %v", code, err)
			}
			return frames
		}
		if err := c.CheckFrame(frame); err != nil {
			f.Errorf("the frame %.300s is not as the document says: %v", frame, err)
		}
		frames = append(frames, frame)
	}
}

func TestEveryFrameOfAWebSocketIsAsTheDocumentSaysAndTheEventsAreThoseOfTheOtherTransports(t *testing.T) {
	c, err := openapitest.Load()
	must(t, err)
	f := serve(t)
	checked := &http.Client{Transport: openapitest.Transport(t, f.client.Transport)}
	get := func(path string) string {
		response, err := checked.Get(f.url + path)
		must(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		must(t, err)
		return string(body)
	}
	for name, life := range lives {
		task := f.create()
		run := f.start(task)
		must(t, life.live(t.Context(), run))
		frames := f.session(c, `{"action":"subscribe","taskId":"`+task+`"}`)
		var (
			types, ids []string
			data       string
		)
		for _, frame := range frames[1:] {
			var event struct{ Type, EventID string }
			must(t, json.Unmarshal(frame, &event))
			types, ids = append(types, event.Type), append(ids, event.EventID)
			data += "id: " + event.EventID + "\ndata: " + string(frame) + "\n\n"
		}
		if !slices.Equal(types, life.types) {
			t.Errorf("%s: %q, want %q", name, types, life.types)
		}
		if got := strings.ReplaceAll(get("/api/v1/tasks/"+task+"/events/stream"), ": ping\n\n", ""); got != data {
			t.Errorf("%s: the event stream has\n%.500s\nand not\n%.500s", name, got, data)
		}
		page := get("/api/v1/tasks/" + task + "/events")
		for _, frame := range frames[1:] {
			if !strings.Contains(page, string(frame)) {
				t.Errorf("%s: a poll has no %.300s", name, frame)
			}
		}
		// From a cursor, and from the last one: the end once more.
		first, last := ids[0], ids[len(ids)-1]
		if got := f.session(c, `{"action":"subscribe","taskId":"`+task+`","lastEventId":"`+first+`","gap":"error"}`); len(got) != len(frames)-1 {
			t.Errorf("%s: %d frames after the first event of %d", name, len(got), len(frames)-1)
		}
		if got := f.session(c, `{"action":"subscribe","taskId":"`+task+`","lastEventId":"`+last+`"}`); len(got) != 2 {
			t.Errorf("%s: %d frames after the last event", name, len(got))
		}
		// A history that is another: a warning comes first.
		if got := f.session(c, `{"action":"subscribe","taskId":"`+task+`","lastEventId":"1-00000000","more":"x"}`); len(got) != len(frames)+1 {
			t.Errorf("%s: %d frames after an event that is not there", name, len(got))
		}
	}
}

func TestTheHeartbeatsOfBothTransportsAreAsTheDocumentSays(t *testing.T) {
	c, err := openapitest.Load()
	must(t, err)
	f := serve(t, func(o *Options) { o.Heartbeat, o.SocketHeartbeat = 50*time.Millisecond, time.Second })
	task := f.create()
	s := f.connect()
	s.subscribe(task, "")
	s.confirmed(task, nil)
	_, frame, err := s.conn.Read(s.ctx)
	must(t, err)
	if err := c.CheckFrame(frame); err != nil || !strings.Contains(string(frame), "HEARTBEAT") {
		t.Errorf("%s: %v", frame, err)
	}
	events := f.open(task, "")
	for {
		m, err := events.next()
		must(t, err)
		if m.data == nil {
			continue
		}
		data, err := json.Marshal(m.data)
		must(t, err)
		if err := c.CheckData(data); err != nil || m.data["type"] != "HEARTBEAT" {
			t.Errorf("%s: %v", data, err)
		}
		return
	}
}
