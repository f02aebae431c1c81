package openapitest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// judge is a test that notes whether it was failed.
type judge struct {
	testing.TB
	complaints []string
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, args ...any) {
	j.complaints = append(j.complaints, fmt.Sprintf(format, args...))
}

// exchange gets the path from a server that answers like this.
func exchange(t *testing.T, path string, handler http.HandlerFunc) (body string, complaints []string) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	j := &judge{TB: t}
	client := &http.Client{Transport: Transport(j, server.Client().Transport)}
	response, err := client.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		got = append(got, " and then "+err.Error()...)
	}
	return string(got), j.complaints
}

func TestAnExchangeIsPassedOnAndJudged(t *testing.T) {
	for body, faults := range map[string]int{`{"status":"ok"}`: 0, `{"status":"fine"}`: 1} {
		got, complaints := exchange(t, "/health", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaJSON)
			_, _ = io.WriteString(w, body)
		})
		if got != body || len(complaints) != faults {
			t.Errorf("%s: got %s, %q", body, got, complaints)
		}
	}
}

func TestHalfAnAnswerIsLeftToTheTest(t *testing.T) {
	got, complaints := exchange(t, "/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaJSON)
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"sta`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if got != `{"sta and then unexpected EOF` || len(complaints) != 0 {
		t.Errorf("got %s, %q", got, complaints)
	}
}

func TestAStreamIsJudgedWhileItIsRead(t *testing.T) {
	event := func(eventType taskbridge.EventType, payload string) string {
		return "id: 7-0a1b2c3d\ndata: " + string(envelope(eventType, payload)) + "\n\n"
	}
	progress, end := event(taskbridge.EventProgress, `{"progress":3}`), event(taskbridge.EventCompleted, `{"result":null}`)
	const heartbeat = `data: {"type":"HEARTBEAT","taskId":"3f1-abc","eventId":"0","createdAt":"2026-01-02T03:04:05Z","payload":{"live":true}}` + "\n\n"
	for name, test := range map[string]struct {
		stream string
		faults int
	}{
		"a whole life":              {": ping\n\n" + progress + ": ping\n\n" + heartbeat + end, 0},
		"a heartbeat and a comment": {": ping\n\n" + ": ping\n" + heartbeat, 0},
		"nothing":                   {"", 0},
		"a wrong payload":           {progress + event(taskbridge.EventProgress, `{"progress":300}`) + end, 1},
		"something behind the end":  {end + progress, 1},
		"an event without an id":    {strings.Replace(progress, "id: 7-0a1b2c3d\n", "", 1), 1},
		"another id":                {strings.Replace(progress, "id: 7", "id: 8", 1), 1},
		"a heartbeat with an id":    {"id: 0\n" + heartbeat, 1},
		"an event name":             {"event: message\n" + progress, 1},
		"data in two lines":         {"data: {}\n" + progress, 1},
		"an id alone":               {"id: 7-0a1b2c3d\n\n", 1},
		"cut within an event":       {progress[:len(progress)-5], 1},
		"everything at once":        {"event: x\n\n" + progress + "id: 1\n\n" + progress, 2},
	} {
		got, complaints := exchange(t, aTask+"/events/stream", func(w http.ResponseWriter, _ *http.Request) {
			header := w.Header()
			header.Set("Content-Type", "text/event-stream")
			header.Set("Cache-Control", "no-cache, no-transform")
			header.Set("X-Accel-Buffering", "no")
			header.Set("X-Request-Id", "r-1")
			for piece := range strings.SplitAfterSeq(test.stream, "3") { // wherever a read may end
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
		})
		if got != test.stream || len(complaints) != test.faults {
			t.Errorf("%s: %d complaints, want %d: %q", name, len(complaints), test.faults, complaints)
		}
	}
}
