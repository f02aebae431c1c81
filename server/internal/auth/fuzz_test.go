package auth

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// The fuzzers check that nothing panics and that what is accepted keeps its
// promises.

func FuzzFindCredential(f *testing.F) {
	f.Add("Bearer abc", "", "", "")
	f.Add("bearer  tbk_AAAA", "tbk_AAAA", "taskbridge.v1, bearer.tbk_AAAA", "access_token=tbk_AAAA&x=1")
	f.Add("Basic YWJj", "\x00", ",,bearer.,", "access_token=%zz;")
	f.Add("Bearer a=b", "ü", "bearer.a b", "access_token=a+b")
	f.Fuzz(func(t *testing.T, authorization, key, protocols, query string) {
		r := &http.Request{
			Header: http.Header{
				"Authorization": {authorization}, headerAPIKey: {key}, headerProtocols: {protocols}, "Upgrade": {"websocket"},
			},
			URL: &url.URL{RawQuery: query},
		}
		found, err := findCredential(r, everywhere)
		switch {
		case err != nil && found != nil:
			t.Error("a token and an error")
		case found != nil && (found.token == "" || len(found.token) > maxToken || strings.ContainsAny(found.token, " ,\t\r\n\x00\"")):
			t.Errorf("found %q", found.token)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	timestamp, signature := SignIdentity(secret, "alice", "tasks:read", noon)
	f.Add("alice", "tasks:read", timestamp, signature, "10.1.2.3:1")
	f.Add("alice\n", "admin", "-1", "zz", "[::ffff:10.0.0.1%x]:1")
	f.Add("", ",, ,", "9223372036854775808", "", "@")
	f.Fuzz(func(t *testing.T, subject, scopes, timestamp, signature, remote string) {
		identity, err := NewIdentity(IdentityOptions{
			TrustedProxies: prefixes(t, "10.0.0.0/8", "fd00::/8"), Secrets: [][]byte{secret}, Clock: newClock(),
		})
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{RemoteAddr: remote, Header: http.Header{
			"X-Taskbridge-Subject": {subject}, "X-Taskbridge-Scopes": {scopes},
			"X-Taskbridge-Timestamp": {timestamp}, "X-Taskbridge-Signature": {signature},
		}}
		principal, found, err := identity.read(r)
		if err == nil && (!found || checkSubject(principal.Subject) != nil || checkScopes(principal.Scopes) != nil) {
			t.Errorf("principal %+v, found %v", principal, found)
		}
		if _, right := SignIdentity(secret, subject, scopes, noon); err == nil && scopes != "" && timestamp == "1906545600" &&
			!strings.EqualFold(right, signature) {
			t.Error("a wrong signature is accepted")
		}
	})
}

func FuzzJWTVerify(f *testing.F) {
	f.Add(goodToken(nil))
	f.Add(rawToken(`{"alg":"none"}`, []byte(`{}`), unsigned))
	f.Add(rawToken(`{"alg":"RS256","kid":"rs","crit":["b64"],"b64":false}`, []byte(`{}`), signRS256("rs")))
	f.Add("..")
	v := newVerifier(f, nil)
	good := goodToken(nil)
	f.Fuzz(func(t *testing.T, text string) {
		principal, err := v.Verify(t.Context(), text)
		if err == nil && text != good && principal.Subject != "alice" {
			t.Errorf("a token that the provider did not sign gives %+v", principal)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("keys:\n- {id: k, hash: \"sha256:" + strings.Repeat("0", 64) + "\", subject: a, scopes: [admin]}\n"))
	f.Add([]byte(`{"keys":[{"id":"k","expiresAt":null,"scopes":["tasks:read"]}]}`))
	f.Add([]byte("keys: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		table, err := decodeKeys(raw)
		if err != nil {
			return
		}
		for _, grant := range table {
			if checkSubject(grant.principal.Subject) != nil || len(grant.principal.Scopes) == 0 {
				t.Errorf("a key for %+v", grant.principal)
			}
		}
	})
}

func FuzzKeySet(f *testing.F) {
	set, err := os.ReadFile("testdata/keyset.json") // the same in every run, unlike the tests' other keys
	if err != nil {
		f.Fatal(err)
	}
	f.Add(set)
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"","e":""},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":""},7]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := decodeKeySet(raw)
		if err != nil && len(set.keys) > 0 {
			t.Error("keys and an error")
		}
		for _, key := range set.keys {
			if len(key.algorithms) == 0 {
				t.Error("a key without a use")
			}
		}
	})
}
