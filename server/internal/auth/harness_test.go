package auth

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	readOnly  = []taskbridge.Scope{taskbridge.ScopeRead}
	readWrite = []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite}
	adminOnly = []taskbridge.Scope{taskbridge.ScopeAdmin}
	worksOnly = []taskbridge.Scope{taskbridge.ScopeWorker}
)

// noon is where the tests' clocks start.
var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func newClock() *fakes.ManualClock { return fakes.NewManualClock(noon) }

// request makes one that arrives from a neighbour; headers are "Name: value".
func request(target string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// wantRefusal checks that the error is answered 401, and for which reason.
func wantRefusal(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, ErrUnauthenticated) || err.Error() != want.Error() {
		t.Errorf("error %q (refusal: %v), want the refusal %q", err, errors.Is(err, ErrUnauthenticated), want)
	}
}

// wantUnavailable checks that the error is answered 503.
func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("error %v, want one that matches ErrUnavailable alone", err)
	}
}

func wantPrincipal(t *testing.T, got taskbridge.Principal, err error, subject string, scopes []taskbridge.Scope) {
	t.Helper()
	if err != nil {
		t.Errorf("refused: %v", err)
		return
	}
	if got.Subject != subject || !equalScopes(got.Scopes, scopes) {
		t.Errorf("principal %+v, want %q with %q", got, subject, scopes)
	}
}

func equalScopes(a, b []taskbridge.Scope) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// until waits for a clock's timer that is due within d.
func until(t *testing.T, clock *fakes.ManualClock, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := clock.BlockUntilDue(ctx, 1, d); err != nil {
		t.Fatalf("nobody waits for a time within %s: %v", d, err)
	}
}

// replaceFile puts a new file in the place of an old one, at once.
func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "next")
	writeFile(t, next, content)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// testKey makes a key and its place in a file.
func testKey(t *testing.T, entry KeyEntry) (key, text string) {
	t.Helper()
	key, complete, err := NewKey(entry)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = complete.FileText(); err != nil {
		t.Fatal(err)
	}
	return key, text
}
