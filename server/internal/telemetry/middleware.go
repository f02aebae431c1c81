package telemetry

import (
	"net/http"
	"strings"
)

// Middleware begins each request and ends it as it was answered, for servers that
// do not note that themselves. It goes inside of whatever answers for a handler
// that panics, and outside of the router.
func (t *Telemetry) Middleware(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, q := t.BeginRequest(r)
		a := &answer{ResponseWriter: w, r: r}
		defer func() {
			fault := recover()
			switch {
			case fault == nil:
				a.note(http.StatusOK) // as net/http has it, if nothing else was said
			case fault != http.ErrAbortHandler: //nolint:errorlint // as net/http compares it
				a.note(http.StatusInternalServerError) // so answers who recovers
			}
			q.End(a.status)
			if fault != nil {
				panic(fault)
			}
		}()
		next.ServeHTTP(a, r)
	})
}

// answer notes how a request is answered. It has Unwrap and none of the optional
// interfaces of a response writer, so that [http.ResponseController] finds those
// of the connection with all their errors; who asserts them directly finds none.
type answer struct {
	http.ResponseWriter
	r      *http.Request
	status int // 0: nothing yet
}

// note notes the status, and whether a stream begins with it.
func (a *answer) note(status int) {
	if a.status != 0 || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	a.status = status
	if status == http.StatusSwitchingProtocols ||
		status == http.StatusOK && strings.HasPrefix(a.Header().Get("Content-Type"), "text/event-stream") {
		SetStreaming(a.r.Context(), status)
	}
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	a.note(status)
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *answer) Write(b []byte) (int, error) {
	a.note(http.StatusOK)
	return a.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
