package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// headerRequestID carries the request's id, both ways.
const headerRequestID = "X-Request-Id"

// recorder notes what is answered.
type recorder struct {
	http.ResponseWriter
	status int // 0: nothing yet
	bytes  int64
	before func() // called before anything is written; nil: nothing to do
}

func (r *recorder) begin() {
	if before := r.before; before != nil {
		r.before = nil
		before()
	}
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.begin()
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.begin()
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type requestIDKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// trace gives the request its id, bounds its body, logs how it was answered,
// and answers for a handler that panics.
func (a *API) trace(w http.ResponseWriter, r *http.Request, next http.Handler) {
	started := a.opts.Clock.Now()
	id := r.Header.Get(headerRequestID)
	if !saneRequestID(id) {
		id = newRequestID()
	}
	w.Header().Set(headerRequestID, id)
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	if r.Body != nil && r.Body != http.NoBody {
		// Here and not where it is read: over the limit it tells the server to
		// close the connection, which a wrapped writer would hide from it.
		r.Body = http.MaxBytesReader(w, r.Body, a.opts.BodyBytes)
	}
	rec := &recorder{ResponseWriter: w}
	r, ended := a.opts.BeginRequest(r)
	// For what is written without a deadline of its own: the connection may have
	// one left from an earlier request.
	inTime := func() {
		if err := a.setWriteDeadline(w); err != nil {
			a.logger.Debug("a connection has gone", "requestId", id, "error", err)
		}
	}
	if r.ProtoMajor < 2 {
		inTime()
	} else {
		// There the deadline is the stream's own, and when it passes the stream is
		// reset, whether somebody writes or a poll waits.
		rec.before = inTime
	}

	defer func() {
		fault := recover()
		abort, _ := fault.(error)
		cut := errors.Is(abort, http.ErrAbortHandler)
		if fault != nil && !cut {
			a.logger.Error("a handler panicked", "requestId", id, "method", r.Method, "path", r.URL.Path,
				"fault", fault, "stack", string(debug.Stack()))
			if rec.status == 0 {
				a.write(rec, r, a.encodeProblem(internalError(id)), http.StatusInternalServerError)
			} else {
				cut = true
			}
		}
		ended(rec.status, IsStream(r) && (rec.status == http.StatusOK || rec.status == http.StatusSwitchingProtocols))
		a.logAccess(r, rec, id, cut, a.opts.Clock.Now().Sub(started))
		if cut {
			panic(http.ErrAbortHandler) // the server closes the connection
		}
	}()
	next.ServeHTTP(rec, r)
}

// maxLoggedPath bounds what a client can put into one line of the log.
const maxLoggedPath = 320

func (a *API) logAccess(r *http.Request, rec *recorder, id string, cut bool, took time.Duration) {
	level := slog.LevelDebug
	if rec.status >= 400 {
		level = slog.LevelInfo
	}
	if !a.logger.Enabled(r.Context(), level) {
		return
	}
	path := r.URL.Path
	if len(path) > maxLoggedPath {
		path = path[:maxLoggedPath]
	}
	attrs := []slog.Attr{
		slog.String("requestId", id),
		slog.String("method", r.Method),
		slog.String("path", path),
		slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes),
		slog.Float64("seconds", took.Seconds()),
	}
	if task := taskInPath(path); task != "" {
		attrs = append(attrs, slog.String("taskId", task))
	}
	if cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	a.logger.LogAttrs(r.Context(), level, "request", attrs...)
}

// taskInPath returns the task id that a path names, "" for none.
func taskInPath(path string) string {
	rest, ok := strings.CutPrefix(path, "/api/v1/tasks/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// saneRequestID reports whether a client's request id may go into logs and back.
func saneRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}

func newRequestID() string {
	var random [12]byte
	_, _ = rand.Read(random[:]) // never fails: see package crypto/rand
	return hex.EncodeToString(random[:])
}
