package httpapi

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// worker gives the handler of the worker API what this server's own handlers
// have: time limits of their own for a body and for an answer. It is a library's
// and knows nothing of connections.
func (a *API) worker(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r = r.Clone(r.Context())
			r.Body = &timedBody{ReadCloser: r.Body, api: a, control: http.NewResponseController(w)}
		}
		next.ServeHTTP(pacedWriter{w, a}, r)
	})
}

// timedBody is a body that must arrive within BodyTimeout. One that does not, or
// that breaks off, has the connection cut: an answer would tell a worker that its
// request was wrong, when it is to be sent again.
type timedBody struct {
	io.ReadCloser
	api     *API
	control *http.ResponseController
	begun   bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		if supported(b.control.SetReadDeadline(time.Now().Add(b.api.opts.BodyTimeout))) != nil {
			panic(http.ErrAbortHandler)
		}
	}
	n, err := b.ReadCloser.Read(p)
	var limit *http.MaxBytesError
	switch {
	case err == nil, errors.As(err, &limit):
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		// Without this the deadline would later pass for the client's going away.
		if supported(b.control.SetReadDeadline(time.Time{})) != nil {
			panic(http.ErrAbortHandler)
		}
	default:
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// pacedWriter gives each piece of an answer its time, which begins when it is
// written and not with a request that may have waited since.
type pacedWriter struct {
	http.ResponseWriter
	api *API
}

// WriteHeader implements [http.ResponseWriter].
func (p pacedWriter) WriteHeader(status int) {
	p.Header().Set("X-Content-Type-Options", "nosniff")
	p.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (p pacedWriter) Write(b []byte) (written int, err error) {
	for piece := range slices.Chunk(b, writePiece) {
		if err := p.api.setWriteDeadline(p.ResponseWriter); err != nil {
			return written, err
		}
		n, err := p.ResponseWriter.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Unwrap lets [http.ResponseController] reach the connection.
func (p pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
