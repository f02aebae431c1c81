package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func discard(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// issuer is an identity provider whose keys come and go.
type issuer struct {
	*httptest.Server
	mu  sync.Mutex
	key *ecdsa.PrivateKey // nil: the server is out of order
	id  string

	signer jose.Signer       // of the last rotation
	others []jose.JSONWebKey // published beside the key
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.key == nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: append([]jose.JSONWebKey{public(i.key, i.id)}, i.others...)})
	}))
	t.Cleanup(i.Close)
	return i
}

func public(key *ecdsa.PrivateKey, id string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: &key.PublicKey, KeyID: id, Algorithm: "ES256", Use: "sig"}
}

// publishBeside publishes these keys beside the one that was rotated to.
func (i *issuer) publishBeside(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.others = keys
}

// rotate publishes a new key alone and returns a token that it has signed.
func (i *issuer) rotate(t *testing.T, id string) (token string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	i.publish(key, id)
	return i.token(t, time.Hour)
}

// token is alice's and signed with the last key.
func (i *issuer) token(t *testing.T, life time.Duration) string {
	t.Helper()
	token, err := jwt.Signed(i.signer).Claims(map[string]any{
		"iss": "https://id.example", "aud": "taskbridge", "sub": "alice", "scope": "tasks:read tasks:write",
		"exp": time.Now().Add(life).Unix(),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (i *issuer) publish(key *ecdsa.PrivateKey, id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.id = key, id
}

func TestTheIssuersKeysMayComeLateGoAwayAndRotateWithoutARestart(t *testing.T) {
	provider := newIssuer(t)
	first := provider.rotate(t, "first")
	firstKey := provider.key
	provider.publish(nil, "")
	s := startServer(t, load(t, "--store", "memory", "--auth-modes", "jwt", "--auth-jwt-issuer", "https://id.example",
		"--auth-jwt-audiences", "taskbridge", "--auth-jwt-keys-url", provider.URL,
		"--auth-jwt-refresh-interval", "20ms", "--auth-jwt-max-stale", "1m", "--rate-limit-requests-per-second", "0"), openStore)

	// Not there yet: that is no refusal, which clients would take for final.
	got := s.send("GET", "/api/v1/tasks", first, "")
	if got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Body, `"code":"UNAVAILABLE"`) ||
		!strings.Contains(got.Body, "credentials cannot be checked") || got.Header.Get("Retry-After") != "1" {
		t.Errorf("%+v", got)
	}
	if status, _, _ := s.socket(first, "x"); status != http.StatusServiceUnavailable {
		t.Errorf("WebSocket: %d", status)
	}
	provider.publish(firstKey, "first")
	s.until("GET", "/api/v1/tasks", first, http.StatusOK)

	// Away again: the keys that are known stay good.
	provider.publish(nil, "")
	if got := s.send("GET", "/api/v1/tasks", first, ""); got.Status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	second := provider.rotate(t, "second")
	s.until("GET", "/api/v1/tasks", second, http.StatusOK)
	if got := s.send("GET", "/api/v1/tasks", first, ""); got.Status != http.StatusUnauthorized {
		t.Errorf("a token of the key that was taken off: %+v", got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if log := s.log.String(); strings.Contains(log, first) || strings.Contains(log, second) {
		t.Error("the log has a token")
	}
}
