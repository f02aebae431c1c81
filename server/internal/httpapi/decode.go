package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// readBody reads the whole body within its limits of size and time; nil where
// there is none. Handlers of routes without a body have it read as well: while
// a body is left unread the server cannot see that the client has gone.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	tooLarge := &problem{
		status: http.StatusRequestEntityTooLarge, code: codePayloadTooLarge,
		message: fmt.Sprintf("the body is over the limit of %d bytes", a.opts.BodyBytes),
		details: map[string]any{"limit": a.opts.BodyBytes},
	}
	control := http.NewResponseController(w)
	if supported(control.SetReadDeadline(time.Now().Add(a.opts.BodyTimeout))) != nil {
		return nil, errCut // the connection has gone
	}
	if r.ContentLength > a.opts.BodyBytes {
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := body.ReadFrom(r.Body)
	var limit *http.MaxBytesError
	switch {
	case err == nil:
		// Without this the deadline would later pass for the client's going away.
		if supported(control.SetReadDeadline(time.Time{})) != nil {
			return nil, errCut
		}
		return body.Bytes(), nil
	case errors.As(err, &limit):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.logger.Info("a body was too slow and has been cut", "requestId", requestID(r.Context()))
		return nil, errCut
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), r.Context().Err() != nil:
		return nil, errCut
	}
	w.Header().Set("Connection", "close")
	return nil, invalidRequest("the body cannot be read: " + err.Error())
}

// requireJSON checks the content type. Parameters are fine.
func requireJSON(r *http.Request) error {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || mediaType != "application/json" {
		return invalidRequest("the content type must be application/json")
	}
	return nil
}

// decodeObject reads the one JSON object that the body must be, its members'
// names taken literally.
func decodeObject(body []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(body) {
		return nil, invalidRequest("the body is not UTF-8")
	}
	var members map[string]json.RawMessage
	err := json.Unmarshal(body, &members)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind), err == nil && members == nil:
		return nil, invalidRequest("the body must be a JSON object")
	case err != nil:
		return nil, invalidRequest("the body is not JSON: " + err.Error())
	}
	return members, nil
}

// stringMember returns a member that must be a string; "" if it is absent or null.
func stringMember(members map[string]json.RawMessage, name string) (string, error) {
	raw := members[name]
	if isNull(raw) {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", missingField(name, "must be a string")
	}
	// The decoder puts U+FFFD for half a surrogate pair: other texts than the
	// client's, and the same for several of them.
	if strings.ContainsRune(s, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return "", missingField(name, "is not Unicode text")
	}
	return s, nil
}

// objectMember returns a member that must be an object; nil if it is absent or null.
func objectMember(members map[string]json.RawMessage, name string) (json.RawMessage, error) {
	raw := members[name]
	if isNull(raw) {
		return nil, nil
	}
	if raw[0] != '{' {
		return nil, missingField(name, "must be an object")
	}
	return raw, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// query holds a request's query parameters.
type query struct{ values url.Values }

func parseQuery(r *http.Request) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, invalidRequest("the query cannot be read: " + err.Error())
	}
	return query{values}, nil
}

// text returns the first value, "" where there is none.
func (q query) text(name string) string { return q.values.Get(name) }

// number returns a whole number within the limits, def where there is none.
func (q query) number(name string, def, least, most int) (int, error) {
	if !q.values.Has(name) {
		return def, nil
	}
	n, err := strconv.ParseInt(q.values.Get(name), 10, 64)
	if err != nil || n < int64(least) || n > int64(most) || n > math.MaxInt {
		return 0, outOfRange(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return int(n), nil
}

// gapError reports whether the client wants a cursor that cannot be honoured
// told as an error.
func (q query) gapError() (bool, error) {
	switch {
	case !q.values.Has("gap"):
		return false, nil
	case q.values.Get("gap") == "error":
		return true, nil
	}
	return false, outOfRange("gap", `must be "error" where it is given`)
}
