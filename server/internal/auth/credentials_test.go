package auth

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

var everywhere = places{apiKeyHeader: true, protocols: true, query: true}

func TestATokenIsFoundWhereItMayBe(t *testing.T) {
	const webSocket = "Upgrade: websocket"
	for _, test := range []struct {
		name    string
		in      places
		target  string
		headers []string
		want    string // "": none
		refused error
	}{
		{"bearer", everywhere, "/", []string{"Authorization: Bearer abc.DEF-1_~+/=="}, "abc.DEF-1_~+/==", nil},
		{"scheme in other case", everywhere, "/", []string{"Authorization: bEARER abc"}, "abc", nil},
		{"more spaces", everywhere, "/", []string{"Authorization: Bearer   abc"}, "abc", nil},
		{"API key", everywhere, "/", []string{"X-API-Key: abc"}, "abc", nil},
		{"query", everywhere, "/?lastEventId=3&access_token=abc", nil, "abc", nil},
		{"query, escaped", everywhere, "/?access%5Ftoken=abc", nil, "", nil}, // nobody writes it so; see below
		{"subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: taskbridge.v1, bearer.abc"}, "abc", nil},
		{"subprotocol in a line of its own", everywhere, "/",
			[]string{"Upgrade: WebSocket", "Sec-WebSocket-Protocol: taskbridge.v1", "Sec-WebSocket-Protocol: bearer.abc"}, "abc", nil},
		{"the same in all places", everywhere, "/?access_token=abc",
			[]string{webSocket, "Authorization: Bearer abc", "X-API-Key: abc", "Sec-WebSocket-Protocol: bearer.abc"}, "abc", nil},

		{"nothing", everywhere, "/", nil, "", nil},
		{"another scheme", everywhere, "/", []string{"Authorization: Basic YWJj"}, "", nil},
		{"a scheme that begins so", everywhere, "/", []string{"Authorization: BearerX abc"}, "", nil},
		{"another subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: chat, Bearer.abc"}, "", nil},
		{"subprotocol without an upgrade", everywhere, "/", []string{"Sec-WebSocket-Protocol: bearer.abc"}, "", nil},
		{"another parameter", everywhere, "/?token=abc", nil, "", nil},
		{"API key, off", places{}, "/", []string{"X-API-Key: abc"}, "", nil},
		{"subprotocol, off", places{}, "/", []string{webSocket, "Sec-WebSocket-Protocol: bearer.abc"}, "", nil},
		{"query, off", places{}, "/?access_token=abc", nil, "", nil},
		{"cookie", everywhere, "/", []string{"Cookie: access_token=abc"}, "", nil},

		{"two tokens", everywhere, "/?access_token=abc", []string{"Authorization: Bearer abd"}, "", errTwoCredentials},
		{"two in the query", everywhere, "/?access_token=abc&access_token=abd", nil, "", errTwoCredentials},
		{"two authorizations", everywhere, "/", []string{"Authorization: Bearer abc", "Authorization: Bearer abc"}, "", errTwoCredentials},
		{"two keys", everywhere, "/", []string{"X-API-Key: abc", "X-API-Key: abd"}, "", errTwoCredentials},
		{"two subprotocols", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: bearer.abc, bearer.abd"}, "", errTwoCredentials},
		{"bearer without a token", everywhere, "/", []string{"Authorization: Bearer"}, "", errTokenForm},
		{"bearer and spaces", everywhere, "/", []string{"Authorization: Bearer  "}, "", errTokenForm},
		{"two words", everywhere, "/", []string{"Authorization: Bearer abc def"}, "", errTokenForm},
		{"a list", everywhere, "/", []string{"Authorization: Bearer abc, Bearer def"}, "", errTokenForm},
		{"padding alone", everywhere, "/", []string{"Authorization: Bearer =="}, "", errTokenForm},
		{"padding in the middle", everywhere, "/", []string{"Authorization: Bearer a=b"}, "", errTokenForm},
		{"no ASCII", everywhere, "/", []string{"Authorization: Bearer äbc"}, "", errTokenForm},
		{"empty key", everywhere, "/", []string{"X-API-Key: "}, "", errTokenForm},
		{"empty subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: taskbridge.v1, bearer."}, "", errTokenForm},
		{"empty parameter", everywhere, "/?access_token=", nil, "", errTokenForm},
		{"bad query", everywhere, "/?access_token=%zz", nil, "", errTokenForm},
		{"as long as may be", everywhere, "/", []string{"X-API-Key: " + strings.Repeat("a", maxToken)}, strings.Repeat("a", maxToken), nil},
		{"oversize", everywhere, "/", []string{"X-API-Key: " + strings.Repeat("a", maxToken+1)}, "", errTokenLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := findCredential(request(test.target, test.headers...), test.in)
			switch {
			case test.refused != nil:
				wantRefusal(t, err, test.refused)
			case err != nil:
				t.Errorf("refused: %v", err)
			case test.want == "" && got != nil:
				t.Errorf("found %q", got.token)
			case test.want != "" && (got == nil || got.token != test.want):
				t.Errorf("found %v, want %q", got, test.want)
			}
		})
	}
}

// What comes in is never executed, quoted or taken for more than it is; the
// fuzzers check that nothing panics and that what is found keeps its promises.

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
	f.Add([]byte(providerSet()))
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
