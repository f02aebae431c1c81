package httpapi

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// echoWorker stands for the worker API: it reads the body, waits until the
// channel is closed, and answers with what it read.
func echoWorker(waits <-chan struct{}) func(*Options) {
	return func(o *Options) {
		o.Worker = func(<-chan struct{}) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					w.WriteHeader(http.StatusBadRequest)
					return
				}
				<-waits
				_ = json.NewEncoder(w).Encode(string(body))
			}), nil
		}
	}
}

const workerPath = workerapi.BasePath + "000-task/"

func TestAWorkersRequestMayWaitForLongerThanAWriteMayTake(t *testing.T) {
	const limit = 200 * time.Millisecond
	waits := make(chan struct{})
	f := serve(t, echoWorker(waits), func(o *Options) { o.WriteTimeout = limit })
	release := time.AfterFunc(3*limit, func() { close(waits) })
	defer release.Stop()
	if r := f.do("GET", workerPath+"attempt", ""); r.StatusCode != http.StatusOK || string(r.body) != "\"\"\n" {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
}

func TestAWorkersAnswerIsWholeHoweverLargeItIs(t *testing.T) {
	waits := make(chan struct{})
	close(waits)
	f := serve(t, echoWorker(waits))
	body := strings.Repeat("x", 1<<20)
	if r := f.do("POST", workerPath+"reports", body); r.StatusCode != http.StatusOK || string(r.body) != `"`+body+"\"\n" {
		t.Errorf("%d, %d bytes", r.StatusCode, len(r.body))
	}
}

// Told that its request was wrong, a worker would give its task up.
func TestAWorkersBodyThatDoesNotComeHasItsConnectionCutAndIsNotAnswered(t *testing.T) {
	waits := make(chan struct{})
	close(waits)
	f := serve(t, echoWorker(waits), func(o *Options) { o.BodyTimeout = 100 * time.Millisecond })
	for name, sent := range map[string]string{
		"late":         "Content-Length: 10\r\n\r\nhalf",
		"badly framed": "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		c := f.rawConn(0)
		c.send("POST %sreports HTTP/1.1\r\nHost: localhost\r\n%s", workerPath, sent)
		if got, err := io.ReadAll(c.conn); len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestABodyThatNobodyReadsDoesNotHoldItsConnection(t *testing.T) {
	f := serve(t, func(o *Options) {
		o.BodyTimeout = 100 * time.Millisecond
		o.Worker = func(<-chan struct{}) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }), nil
		}
	})
	for target, status := range map[string]string{
		"POST " + workerPath + "reports": "401",
		"GET " + workerPath + "attempt":  "401",
		"POST " + workerPath + "nothing": "404",
		"PUT /api/v1/tasks":              "405",
		"GET /health":                    "200",
	} {
		c := f.rawConn(0)
		c.send("%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf", target)
		if got, err := io.ReadAll(c.conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 "+status) {
			t.Errorf("%s: %q, %v", target, got, err)
		}
	}
	for _, headers := range []string{"Host: elsewhere.example", "Host: localhost\r\nOrigin: https://elsewhere.example"} {
		c := f.rawConn(0)
		c.send("POST /api/v1/tasks HTTP/1.1\r\n%s\r\nContent-Length: 10\r\n\r\nhalf", headers)
		if got, err := io.ReadAll(c.conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400") {
			t.Errorf("%s: %q, %v", headers, got, err)
		}
	}
}
