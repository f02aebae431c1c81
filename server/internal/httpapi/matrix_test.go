package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
	"github.com/taskbridge/taskbridge/fakes"
)

// scoped is a server that asks for scopes, and the record of what it asks of its
// store.
type scoped struct {
	*fixture
	calls *fakes.Faults
}

// serveScoped has a clock that stands still: answers are the same to the byte.
func serveScoped(t *testing.T) *scoped {
	t.Helper()
	store, calls := memory.NewStore(memory.Options{}), fakes.NewFaults()
	stores := fakes.WrapStores(taskbridge.Stores{Tasks: store, Events: store}, calls)
	router, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{scripted: fakes.NewScriptedExecutor()})
	must(t, err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: router, Ownership: taskbridge.ScopedOwners{}})
	must(t, err)
	f := serve(t, func(o *Options) {
		o.Bridge, o.Authenticator, o.AccessControl, o.Clock = bridge, byScopes, true, fakes.NewManualClock(time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC))
	})
	t.Cleanup(bridge.Subscription.Close)
	f.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	must(t, err)
	return &scoped{f, calls}
}

// asked is what was asked of the store since the given step, without the task's
// name.
func (s *scoped) asked(since int, task string) []string {
	var asked []string
	for _, call := range s.calls.Steps()[since:] {
		asked = append(asked, fmt.Sprintf("%s(%s)", call.Op, strings.ReplaceAll(call.TaskID, task, "{}")))
	}
	return asked
}

// exchange sends bytes and returns all that is answered until the connection is
// closed, but for the time.
func (s *scoped) exchange(request string) string {
	s.Helper()
	r := s.rawConn(0)
	r.send("%s", request)
	if strings.Contains(request, "Upgrade: websocket") {
		header := r.head(http.StatusSwitchingProtocols)
		header.Del("Date")
		told := fmt.Sprint(header)
		for {
			opcode, payload, err := r.frame()
			must(s.T, err)
			told += fmt.Sprintf("\n%x %s", opcode, payload)
			if opcode == opClose {
				r.send("%s", clientFrameOf(opClose, payload[:2]))
				must(s.T, r.conn.Close())
				return told
			}
		}
	}
	answer, err := io.ReadAll(r.in)
	must(s.T, err)
	must(s.T, r.conn.Close())
	return date.ReplaceAllString(string(answer), "Date: now\r\n")
}

var date = regexp.MustCompile(`Date: [^\r]*\r\n`)

// requests are all that one can ask of a task, over each transport.
var requests = map[string]func(task, subject, scopes string) string{
	"row":                      plain("GET", "", "", ""),
	"row, waiting":             plain("GET", "", "Prefer: wait=60\r\n", ""),
	"poll":                     plain("GET", "/events", "", ""),
	"poll, waiting":            plain("GET", "/events?waitTimeoutMs=60000", "", ""),
	"poll after an event":      plain("GET", "/events?afterEventId=1-0a1b2c3d&gap=error", "", ""),
	"stream":                   plain("GET", "/events/stream", "", ""),
	"stream after an event":    plain("GET", "/events/stream?gap=error", "Last-Event-ID: 1-0a1b2c3d\r\n", ""),
	"cancel":                   plain("POST", "/cancel", "", ""),
	"cancel for a reason":      plain("POST", "/cancel", "Content-Type: application/json\r\n", `{"reason":"r"}`),
	"another method":           plain("DELETE", "", "", ""),
	"another route":            plain("GET", "/nothing", "", ""),
	"WebSocket":                socketRequest(""),
	"WebSocket after an event": socketRequest(`,"lastEventId":"1-0a1b2c3d","gap":"error"`),
}

func plain(method, rest, header, body string) func(task, subject, scopes string) string {
	return func(task, subject, scopes string) string {
		return fmt.Sprintf("%s /api/v1/tasks/%s%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: r\r\n"+
			"X-Subject: %s\r\nX-Scopes: %s\r\n%sContent-Length: %d\r\n\r\n%s", method, task, rest, subject, scopes, header, len(body), body)
	}
}

func socketRequest(more string) func(task, subject, scopes string) string {
	return func(task, subject, scopes string) string {
		head := strings.Replace(upgradeRequest, "\r\n\r\n", fmt.Sprintf("\r\nX-Request-Id: r\r\nX-Subject: %s\r\nX-Scopes: %s\r\n\r\n", subject, scopes), 1)
		return head + clientText(fmt.Sprintf(`{"action":"subscribe","taskId":%q%s}`, task, more))
	}
}

// byScopes takes a caller at his word.
var byScopes = AuthenticatorFunc(func(r *http.Request) (taskbridge.Principal, error) {
	p := taskbridge.Principal{Subject: r.Header.Get("X-Subject")}
	for _, name := range strings.Fields(r.Header.Get("X-Scopes")) {
		p.Scopes = append(p.Scopes, taskbridge.Scope(name))
	}
	if p.Subject == "" {
		return p, ErrUnauthenticated
	}
	return p, nil
})

func TestAForeignTaskIsNoMoreWorkThanAMissingOneAndLooksTheSameToTheByte(t *testing.T) {
	s := serveScoped(t)
	create := func() string {
		body := fmt.Sprintf(`{"clientRequestId":%q,"taskType":"scripted","input":{"big":%q}}`, newKey(), strings.Repeat("x", 100_000))
		row := s.expect(201, "POST", "/api/v1/tasks", body, "X-Subject: alice", "X-Scopes: tasks:write")
		return row["taskId"].(string)
	}
	tasks := map[string]string{"accepted": create(), "running": create(), "completed": create(), "cancelled": create()}
	s.progress(s.start(tasks["running"]), 1, 2, 3)
	s.complete(s.start(tasks["completed"]), `"r"`)
	must(t, s.start(tasks["cancelled"]).Cancelled(context.Background(), ""))

	for name, request := range requests {
		for _, scopes := range []string{"tasks:read tasks:write", "tasks:read", "tasks:write", "worker", ""} {
			for state, task := range tasks {
				missing := task[:len(task)-1] + map[bool]string{true: "b", false: "a"}[task[len(task)-1] == 'a']
				before := len(s.calls.Steps())
				foreignAnswer := s.exchange(request(task, "bob", scopes))
				foreignWork := s.asked(before, task)
				before = len(s.calls.Steps())
				missingAnswer := s.exchange(request(missing, "bob", scopes))
				missingWork := s.asked(before, missing)
				if diff := cmp.Diff(strings.ReplaceAll(missingAnswer, missing, "{}"), strings.ReplaceAll(foreignAnswer, task, "{}")); diff != "" {
					t.Errorf("%s, %s, scopes %q: a missing task is answered differently: %s", name, state, scopes, diff)
				}
				if diff := cmp.Diff(missingWork, foreignWork); diff != "" {
					t.Errorf("%s, %s, scopes %q: a missing task is other work: %s", name, state, scopes, diff)
				}
			}
		}
	}
	// Its owner's requests, in which the record is seen to have anything, are.
	for name, request := range requests {
		if strings.HasPrefix(name, "another") || strings.Contains(name, "waiting") || strings.Contains(name, "cancel") {
			continue
		}
		before := len(s.calls.Steps())
		answer := s.exchange(request(tasks["completed"], "alice", "tasks:read tasks:write"))
		if len(s.asked(before, "")) == 0 || strings.Contains(answer, "TASK_NOT_FOUND") {
			t.Errorf("%s, of the owner: %s", name, answer)
		}
	}
}
