package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/server/internal/auth"
)

func TestAProxysIdentityIsTakenWithItsSignatureAlone(t *testing.T) {
	secret := strings.Repeat("s", 32)
	c := load(t, "--store", "memory", "--auth-modes", "proxy", "--auth-proxy-secrets", secret, "--auth-proxy-default-scopes", "tasks:read")
	s := startServer(t, c, openStore)
	for _, test := range []struct {
		name, secret, signed, sent string
		at                         time.Time
		want                       int
	}{
		{"signed", secret, "alice", "alice", time.Now(), http.StatusOK},
		{"signed for another", secret, "alice", "bob", time.Now(), http.StatusUnauthorized},
		{"signed by another", strings.Repeat("x", 32), "alice", "alice", time.Now(), http.StatusUnauthorized},
		{"signed long ago", secret, "alice", "alice", time.Now().Add(-time.Hour), http.StatusUnauthorized},
	} {
		r, err := http.NewRequest("GET", s.url+"/api/v1/tasks", nil)
		if err != nil {
			t.Fatal(err)
		}
		timestamp, signature := auth.SignIdentity([]byte(test.secret), test.signed, "", test.at)
		r.Header.Set("X-Taskbridge-Subject", test.sent)
		r.Header.Set("X-Taskbridge-Timestamp", timestamp)
		r.Header.Set("X-Taskbridge-Signature", signature)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != test.want {
			t.Errorf("%s: %d, %v, want %d", test.name, response.StatusCode, err, test.want)
		}
	}
	if got := s.send("GET", "/api/v1/tasks", "", ""); got.Status != http.StatusUnauthorized {
		t.Errorf("without: %+v", got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String()+fmt.Sprint(c.Source("auth.proxy.secrets")), secret) {
		t.Error("the secret is in the log")
	}
}
