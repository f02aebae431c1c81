package openapitest

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"sync"
	"testing"
)

// loaded is the embedded document, read once a test binary.
var loaded = sync.OnceValues(Load)

// Transport checks every answer that passes through it, and fails the test for
// one that is not as the document says; event streams are checked as they are
// read. nil for next means [http.DefaultTransport]. What a client of the test
// sends may be as wrong as the test wants it.
//
// The client must not be used after the test has ended.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	contract, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{t, contract, next}
}

type transport struct {
	t        testing.TB
	contract *Contract
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	var body []byte
	switch {
	case response.StatusCode == http.StatusSwitchingProtocols:
	case mediaType == "text/event-stream":
		response.Body = &streamReader{ReadCloser: response.Body, contract: c.contract, report: func(block []byte, err error) {
			c.t.Errorf("%s %s: the stream has\n%s\nwhich is not as the document says: %v", r.Method, r.URL.Path, block, err)
		}}
	default:
		var cut error
		if body, cut = io.ReadAll(response.Body); cut != nil {
			response.Body = replay(body, cut, response.Body)
			return response, nil // half an answer is for the test to judge
		}
		response.Body = replay(body, io.EOF, response.Body)
	}
	if err := c.contract.CheckAnswer(r, response.StatusCode, response.Header, body); err != nil {
		c.t.Errorf("%s %s was answered %s\n%v\n%s\nwhich is not as the document says: %v",
			r.Method, r.URL.Path, response.Status, response.Header, body, err)
	}
	return response, nil
}

// replay is a body that has been read already, with the error that it ended in.
func replay(body []byte, end error, closer io.Closer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), ending{end}), closer}
}

type ending struct{ err error }

func (e ending) Read([]byte) (int, error) { return 0, e.err }
