package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthSaysWhetherTheServerAnswers(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/health" || r.Host != "localhost" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer broken.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(plain.URL+"/health", http.StatusFound))
	defer elsewhere.Close()
	nobody := httptest.NewServer(answer)
	nobody.Close()

	at := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	_, port, err := net.SplitHostPort(at(plain))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, args, environ string
		status              int
		stderr              string // a part; "" for an empty one
	}{
		{"a flag", "--listen " + at(plain), "", exitOK, ""},
		{"the environment", "", "TASKBRIDGE_LISTEN=" + at(plain), exitOK, ""},
		{"the flag wins", "--listen " + at(plain), "TASKBRIDGE_LISTEN=" + at(nobody), exitOK, ""},
		{"every address", "--listen 0.0.0.0:" + port, "", exitOK, ""},
		{"every address, without a host", "--listen :" + port, "", exitOK, ""},
		{"TLS", "--tls --listen " + at(secure), "", exitOK, ""},
		{"TLS by the environment", "", "TASKBRIDGE_TLS_CERT_FILE=cert.pem TASKBRIDGE_LISTEN=" + at(secure), exitOK, ""},
		{"no TLS where there is", "--listen " + at(secure), "", exitFailed, "400"},
		{"another status", "--listen " + at(broken), "", exitFailed, "answered 502"},
		{"a redirect", "--listen " + at(elsewhere), "", exitFailed, "answered 302"},
		{"nobody there", "--listen " + at(nobody), "", exitFailed, "the server does not answer"},
		{"no address", "--listen here", "", exitFailed, "must be HOST:PORT"},
		{"no port", "--listen 127.0.0.1:0", "", exitFailed, "the port"},
		{"no such flag", "--nothing", "", exitFailed, "--nothing"},
		{"an argument", "now", "", exitFailed, `"now"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run(append([]string{"health"}, strings.Fields(test.args)...), strings.Fields(test.environ), &stdout, &stderr)
			if status != test.status || stdout.String() != "" {
				t.Errorf("status %d, stdout %q", status, stdout.String())
			}
			if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.String() != "" || strings.Count(stderr.String(), "\n") > 1 {
				t.Errorf("stderr %q, want %q", stderr.String(), test.stderr)
			}
		})
	}
}
