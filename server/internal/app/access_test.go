package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/openapi/openapitest"
)

// keyring is a file of API keys and the keys themselves by their ids.
type keyring struct {
	file    string
	keys    map[string]string
	entries map[string]auth.KeyEntry // with their hashes
}

func newKeyring(t *testing.T, entries ...auth.KeyEntry) keyring {
	t.Helper()
	k := keyring{filepath.Join(t.TempDir(), "keys.yaml"), map[string]string{}, map[string]auth.KeyEntry{}}
	k.write(t, entries...)
	return k
}

// write replaces the file; the keys in it are new.
func (k keyring) write(t *testing.T, entries ...auth.KeyEntry) {
	t.Helper()
	for i, entry := range entries {
		key, complete, err := auth.NewKey(entry)
		if err != nil {
			t.Fatal(err)
		}
		k.keys[entry.ID], k.entries[entry.ID], entries[i] = key, complete, complete
	}
	k.put(t, entries...)
}

// put replaces the file by entries that have their hashes.
func (k keyring) put(t *testing.T, entries ...auth.KeyEntry) {
	t.Helper()
	content := "keys:\n"
	for _, entry := range entries {
		text, err := entry.FileText()
		if err != nil {
			t.Fatal(err)
		}
		content += text
	}
	if len(entries) == 0 {
		content = "keys: []\n"
	}
	temporary := k.file + ".new"
	if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, k.file); err != nil {
		t.Fatal(err)
	}
}

// answered is an answer without what differs from one to the next.
type answered struct {
	Status int
	Header http.Header
	Body   string
}

// send makes a request with a credential ("" for none) and checks the answer
// against the OpenAPI document.
func (i *instance) send(method, path, credential, body string) answered {
	i.t.Helper()
	r, err := http.NewRequest(method, i.url+path, strings.NewReader(body))
	if err != nil {
		i.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	response, err := openapitest.Transport(i.t, i.client.Transport).RoundTrip(r)
	if err != nil {
		i.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	var object map[string]any
	if json.Unmarshal(content, &object) == nil {
		delete(object, "timestamp")
		if content, err = json.Marshal(object); err != nil {
			i.t.Fatal(err)
		}
	}
	for _, differs := range []string{"Date", "X-Request-Id", "Content-Length"} { // the last by a timestamp's zeros
		response.Header.Del(differs)
	}
	return answered{response.StatusCode, response.Header, string(content)}
}

// socket opens a WebSocket, subscribes, and returns the status of the handshake
// and how the server closed (0: not at all).
func (i *instance) socket(credential, task string) (status int, code websocket.StatusCode, reason string) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	header := http.Header{}
	if credential != "" {
		header.Set("Authorization", "Bearer "+credential)
	}
	conn, response, err := websocket.Dial(ctx, i.url+"/api/v1/tasks/ws", &websocket.DialOptions{HTTPHeader: header, HTTPClient: i.client})
	if err != nil {
		if response == nil {
			i.t.Fatal(err)
		}
		return response.StatusCode, 0, ""
	}
	defer conn.CloseNow()
	subscription := fmt.Sprintf(`{"action":"subscribe","taskId":%q}`, task)
	if err := conn.Write(ctx, websocket.MessageText, []byte(subscription)); err != nil {
		i.t.Fatal(err)
	}
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			var closed websocket.CloseError
			errors.As(err, &closed)
			return response.StatusCode, closed.Code, closed.Reason
		}
		checkFrame(i.t, frame)
	}
}

func both() []taskbridge.Scope {
	return []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite}
}

func TestEveryRouteGivesEveryCredentialWhatItsScopesAllow(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]int{"plain": 0, "TLS, HTTP/1.1": 1, "TLS, HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args, client := []string(nil), http.DefaultClient
			if version > 0 {
				args, client = secure(t, version)
			}
			accessMatrix(t, args, client)
		})
	}
}

// accessMatrix asks every route and transport with every kind of credential.
func accessMatrix(t *testing.T, args []string, client *http.Client) {
	read, write := []taskbridge.Scope{taskbridge.ScopeRead}, []taskbridge.Scope{taskbridge.ScopeWrite}
	ring := newKeyring(t,
		auth.KeyEntry{ID: "owner", Subject: "alice", Scopes: both()},
		auth.KeyEntry{ID: "foreign", Subject: "bob", Scopes: both()},
		auth.KeyEntry{ID: "reader", Subject: "alice", Scopes: read},
		auth.KeyEntry{ID: "writer", Subject: "alice", Scopes: write},
		auth.KeyEntry{ID: "admin", Subject: "carol", Scopes: []taskbridge.Scope{taskbridge.ScopeAdmin}},
		auth.KeyEntry{ID: "worker", Subject: "alice", Scopes: []taskbridge.Scope{taskbridge.ScopeWorker}},
		auth.KeyEntry{ID: "expired", Subject: "alice", Scopes: both(), ExpiresAt: time.Now().Add(-time.Minute)},
	)
	ring.keys["none"] = ""
	ring.keys["bad"] = strings.Repeat("x", 40)
	s := startServer(t, load(t, append(args, "--store", "memory", "--log-level", "debug", "--auth-modes", "apikey", "--auth-api-keys-file", ring.file,
		"--rate-limit-requests-per-second", "0")...), openStore)
	s.client = client

	created := s.send("POST", "/api/v1/tasks", ring.keys["owner"], `{"clientRequestId":"k","taskType":"demo","input":{"ticks":2,"tickMillis":1}}`)
	var task struct {
		TaskID string `json:"taskId"`
	}
	if err := json.Unmarshal([]byte(created.Body), &task); err != nil || created.Status != http.StatusCreated {
		t.Fatalf("%+v %v", created, err)
	}
	const missing = "no-such-task"
	n := 0
	newTask := func() string {
		n++
		return fmt.Sprintf(`{"clientRequestId":"new %d","taskType":"demo","input":{"ticks":0}}`, n)
	}
	nothing := func() string { return "" }
	// Who is not named is nobody.
	for _, route := range []struct {
		method, path string
		body         func() string
		want         map[string]int
	}{
		{"GET", "/api/v1/tasks/{}/events/stream", nothing, map[string]int{"owner": 200, "foreign": 404, "reader": 200, "writer": 403, "admin": 200, "worker": 403}},
		{"GET", "/api/v1/tasks/{}", nothing, map[string]int{"owner": 200, "foreign": 404, "reader": 200, "writer": 403, "admin": 200, "worker": 403}},
		{"GET", "/api/v1/tasks/{}/events", nothing, map[string]int{"owner": 200, "foreign": 404, "reader": 200, "writer": 403, "admin": 200, "worker": 403}},
		{"POST", "/api/v1/tasks/{}/cancel", nothing, map[string]int{"owner": 202, "foreign": 404, "reader": 403, "writer": 202, "admin": 202, "worker": 403}},
		{"POST", "/api/v1/tasks", newTask, map[string]int{"owner": 201, "foreign": 201, "reader": 403, "writer": 201, "admin": 403, "worker": 403}},
		{"GET", "/api/v1/tasks", nothing, map[string]int{"owner": 200, "foreign": 200, "reader": 200, "writer": 403, "admin": 200, "worker": 403}},
	} {
		path := strings.ReplaceAll(route.path, "{}", task.TaskID)
		absent := strings.ReplaceAll(route.path, "{}", missing)
		for _, id := range slices.Sorted(maps.Keys(ring.keys)) {
			want, ok := route.want[id]
			if !ok {
				want = http.StatusUnauthorized
			}
			got := s.send(route.method, path, ring.keys[id], route.body())
			if got.Status != want {
				t.Errorf("%s %s for %s: %d %s, want %d", route.method, route.path, id, got.Status, got.Body, want)
			}
			code := map[int]string{401: "AUTHENTICATION_ERROR", 403: "TASK_OWNERSHIP_ERROR", 404: "TASK_NOT_FOUND"}[want]
			if !strings.Contains(got.Body, code) {
				t.Errorf("%s %s for %s: %s, want %s", route.method, route.path, id, got.Body, code)
			}
			challenge := got.Header.Get("WWW-Authenticate")
			if (challenge != "") != (want == 401) || id != "none" && want == 401 && !strings.Contains(challenge, "invalid_token") {
				t.Errorf("%s %s for %s: challenge %q", route.method, route.path, id, challenge)
			}
			// Whoever may not see the task cannot tell it from one that is not
			// there: nor can who may not do this at all, or is nobody.
			if want >= 400 && absent != path {
				if diff := cmp.Diff(s.send(route.method, absent, ring.keys[id], route.body()), got); diff != "" {
					t.Errorf("%s %s for %s: a missing task differs: %s", route.method, route.path, id, diff)
				}
			}
		}
	}

	for id, want := range map[string]struct {
		status int
		code   websocket.StatusCode
	}{
		"none": {401, 0}, "bad": {401, 0}, "expired": {401, 0},
		"owner": {101, 1000}, "foreign": {101, 4404}, "reader": {101, 1000}, "writer": {101, 4403}, "admin": {101, 1000},
		"worker": {101, 4403},
	} {
		status, code, reason := s.socket(ring.keys[id], task.TaskID)
		if status != want.status || code != want.code {
			t.Errorf("WebSocket for %s: %d, closed %d, want %d and %d", id, status, code, want.status, want.code)
		}
		if want.code >= 4000 {
			if _, other, otherReason := s.socket(ring.keys[id], missing); other != code || otherReason != reason {
				t.Errorf("WebSocket for %s: a missing task is told by %d %q, not %d %q", id, other, otherReason, code, reason)
			}
		}
	}

	list := s.send("GET", "/api/v1/tasks", ring.keys["foreign"], "")
	if strings.Contains(list.Body, task.TaskID) || !strings.Contains(list.Body, `"new `) {
		t.Errorf("the foreign list: %s", list.Body)
	}
	if list := s.send("GET", "/api/v1/tasks", ring.keys["admin"], ""); !strings.Contains(list.Body, task.TaskID) {
		t.Errorf("the administrator's list: %s", list.Body)
	}
	for _, path := range []string{"/health", "/ready"} {
		if got := s.send("GET", path, "", ""); got.Status != http.StatusOK {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	for id, key := range ring.keys {
		if key != "" && strings.Contains(s.log.String(), key) {
			t.Errorf("the key of %s is in the log", id)
		}
	}
}

func TestATokenInTheAddressOpensStreamsAloneAndIsInNoLog(t *testing.T) {
	ring := newKeyring(t, auth.KeyEntry{ID: "k", Subject: "alice", Scopes: both()})
	for _, on := range []bool{false, true} {
		s := startServer(t, load(t, "--store", "memory", "--log-level", "debug", "--auth-modes", "apikey",
			"--auth-api-keys-file", ring.file, fmt.Sprint("--auth-query-token=", on)), openStore)
		created := s.send("POST", "/api/v1/tasks", ring.keys["k"], `{"clientRequestId":"k","taskType":"demo","input":{"ticks":0}}`)
		_, rest, _ := strings.Cut(created.Body, `"taskId":"`)
		task, _, _ := strings.Cut(rest, `"`)
		query := "?access_token=" + ring.keys["k"]
		want := http.StatusUnauthorized
		if on {
			want = http.StatusOK
		}
		if got := s.send("GET", "/api/v1/tasks/"+task+"/events/stream"+query, "", ""); got.Status != want {
			t.Errorf("stream, on=%v: %d %s", on, got.Status, got.Body)
		}
		for _, path := range []string{"/api/v1/tasks", "/api/v1/tasks/" + task, "/api/v1/tasks/" + task + "/events"} {
			if got := s.send("GET", path+query, "", ""); got.Status != http.StatusUnauthorized {
				t.Errorf("%s, on=%v: %d", path, on, got.Status)
			}
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if strings.Contains(s.log.String(), ring.keys["k"]) || strings.Contains(s.log.String(), "access_token") {
			t.Error("the log has the token")
		}
	}
}

func TestAKeyThatIsTakenOffTheFileIsRefusedWithoutARestart(t *testing.T) {
	ring := newKeyring(t, auth.KeyEntry{ID: "old", Subject: "alice", Scopes: both()})
	old := ring.keys["old"]
	s := startServer(t, load(t, "--store", "memory", "--auth-modes", "apikey", "--auth-api-keys-file", ring.file,
		"--auth-api-keys-reload-interval", "10ms", "--rate-limit-requests-per-second", "0"), openStore)
	if got := s.send("GET", "/api/v1/tasks", old, ""); got.Status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	ring.write(t, auth.KeyEntry{ID: "new", Subject: "alice", Scopes: both()})
	s.until("GET", "/api/v1/tasks", ring.keys["new"], http.StatusOK)
	if got := s.send("GET", "/api/v1/tasks", old, ""); got.Status != http.StatusUnauthorized {
		t.Errorf("the old key: %+v", got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// until asks again until the status is as it should be.
func (i *instance) until(method, path, credential string, want int) {
	i.t.Helper()
	var got answered
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); {
		if got = i.send(method, path, credential, ""); got.Status == want {
			return
		}
	}
	i.t.Fatalf("%s %s: still %d %s, want %d", method, path, got.Status, got.Body, want)
}

func TestAFileOfKeysThatIsBrokenKeepsTheServerFromStarting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(file, []byte("keys: [{id: a}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	err := run(context.Background(), load(t, "--store", "memory", "--auth-modes", "apikey", "--auth-api-keys-file", file), discard(&log), openStore)
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}
