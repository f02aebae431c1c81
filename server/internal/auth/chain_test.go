package auth

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

const (
	proxyAddress  = "10.1.2.3:4711"
	clientAddress = "203.0.113.9:4711"
	streamPath    = "/api/v1/tasks/000-x/events/stream"
)

// chainParts are all ways of authentication, with a credential of each.
type chainParts struct {
	clock                       *fakes.ManualClock
	options                     Options
	reader, writer, admin, gone string // API keys; gone has expired
}

func newParts(t *testing.T) *chainParts {
	t.Helper()
	p := &chainParts{}
	var text, more string
	p.reader, more = testKey(t, KeyEntry{ID: "reader", Subject: "alice", Scopes: readOnly})
	text += more
	p.writer, more = testKey(t, KeyEntry{ID: "writer", Subject: "alice", Scopes: readWrite})
	text += more
	p.admin, more = testKey(t, KeyEntry{ID: "admin", Subject: "root", Scopes: adminOnly})
	text += more
	p.gone, more = testKey(t, KeyEntry{ID: "gone", Subject: "alice", Scopes: readOnly, ExpiresAt: noon})
	text += more
	path := filepath.Join(t.TempDir(), "keys.yaml")
	writeFile(t, path, "keys:\n"+text)
	v := newVerifier(t, nil)
	p.clock = v.clock
	keys, err := OpenAPIKeys(APIKeyOptions{File: path, Clock: p.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := keys.Close(); err != nil {
			t.Error(err)
		}
	})
	p.options = Options{
		APIKeys: keys,
		JWT:     v.JWT,
		Identity: newIdentity(t, IdentityOptions{
			TrustedProxies: prefixes(t, "10.0.0.0/8"), DefaultScopes: readWrite, Clock: p.clock,
		}),
		WebSocketToken: true,
		QueryToken:     func(r *http.Request) bool { return r.URL.Path == streamPath },
	}
	return p
}

func (p *chainParts) chain(t *testing.T, change func(*Options)) *Chain {
	t.Helper()
	opts := p.options
	if change != nil {
		change(&opts)
	}
	chain, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestEveryCredentialInEveryPlaceHasItsOnePrincipalOrItsOneReason(t *testing.T) {
	p := newParts(t)
	chain := p.chain(t, nil)
	bearer := func(text string) []string { return []string{"Authorization: Bearer " + text} }
	jwt := func(changes map[string]any) []string { return bearer(goodToken(changes)) }
	webSocket := func(text string) []string {
		return []string{"Upgrade: websocket", "Sec-WebSocket-Protocol: taskbridge.v1, bearer." + text}
	}
	both := append(append([]taskbridge.Scope{}, readOnly...), adminOnly...)
	stranger, _ := testKey(t, KeyEntry{ID: "x", Subject: "mallory", Scopes: adminOnly})
	const identity = "X-Taskbridge-Subject: carol"
	for _, test := range []struct {
		name    string
		remote  string
		target  string
		headers []string
		subject string
		scopes  []taskbridge.Scope
		want    error
	}{
		{"no credentials", clientAddress, "/", nil, "", nil, errNone},
		{"no credentials, from the proxy", proxyAddress, "/", nil, "", nil, errNone},
		{"another scheme", clientAddress, "/", []string{"Authorization: Basic YWxpY2U6cA=="}, "", nil, errNone},

		{"key, read-only", clientAddress, "/", bearer(p.reader), "alice", readOnly, nil},
		{"key, read and write", clientAddress, "/", []string{"X-API-Key: " + p.writer}, "alice", readWrite, nil},
		{"key, admin", clientAddress, "/", bearer(p.admin), "root", adminOnly, nil},
		{"key, foreign", clientAddress, "/", bearer(stranger), "", nil, errKeyUnknown},
		{"key, expired", clientAddress, "/", bearer(p.gone), "", nil, errKeyExpired},
		{"key, malformed", clientAddress, "/", bearer("tbk_abc"), "", nil, errKeyUnknown},
		{"key, no key at all", clientAddress, "/", []string{"X-API-Key: letmein"}, "", nil, errKeyUnknown},
		{"key, a token in its place", clientAddress, "/", []string{"X-API-Key: " + goodToken(nil)}, "", nil, errKeyUnknown},
		{"key, oversize", clientAddress, "/", bearer("tbk_" + strings.Repeat("A", maxToken)), "", nil, errTokenLong},

		{"token, read-only", clientAddress, "/", jwt(map[string]any{"scope": "tasks:read"}), "alice", readOnly, nil},
		{"token, read and write", clientAddress, "/", jwt(nil), "alice", readWrite, nil},
		{"token, admin", clientAddress, "/", jwt(map[string]any{"scope": "admin tasks:read"}), "alice", both, nil},
		{"token, expired", clientAddress, "/", jwt(map[string]any{"exp": noon.Add(-time.Hour).Unix()}), "", nil, errClaimsExpired},
		{"token, foreign", clientAddress, "/", bearer(token(jose.RS256, "foreign", "rs", claimsOf(nil))), "", nil, errJWTSignature},
		{"token, malformed", clientAddress, "/", bearer("letmein"), "", nil, errJWTMalformed},

		{"identity from the proxy", proxyAddress, "/", []string{identity}, "carol", readWrite, nil},
		{"identity from elsewhere", clientAddress, "/", []string{identity}, "", nil, errIdentityPeer},
		{"identity from elsewhere, with a good key", clientAddress, "/", append(bearer(p.admin), identity), "", nil, errIdentityPeer},
		{"identity and a good key", proxyAddress, "/", append(bearer(p.admin), identity), "", nil, errTwoCredentials},
		{"identity and a bad key", proxyAddress, "/", append(bearer("tbk_x"), identity), "", nil, errTwoCredentials},
		{"bad identity and a good key", proxyAddress, "/", append(bearer(p.admin), "X-Taskbridge-Subject: "), "", nil, errIdentitySubject},
		{"identity and another scheme", proxyAddress, "/", []string{identity, "Authorization: Basic YWxpY2U6cA=="}, "carol", readWrite, nil},
		{"key through the proxy", proxyAddress, "/", bearer(p.reader), "alice", readOnly, nil},

		{"a bad token and a good key", clientAddress, "/", append(bearer("x.y.z"), "X-API-Key: "+p.admin), "", nil, errTwoCredentials},
		{"two good keys", clientAddress, "/", append(bearer(p.reader), "X-API-Key: "+p.writer), "", nil, errTwoCredentials},

		{"WebSocket, key", clientAddress, "/", webSocket(p.reader), "alice", readOnly, nil},
		{"WebSocket, token", clientAddress, "/", webSocket(goodToken(nil)), "alice", readWrite, nil},
		{"WebSocket, bad", clientAddress, "/", webSocket("tbk_x"), "", nil, errKeyUnknown},
		{"WebSocket, header", clientAddress, "/", append(bearer(p.reader), "Upgrade: websocket", "Sec-WebSocket-Protocol: taskbridge.v1"), "alice", readOnly, nil},
		{"stream, key", clientAddress, streamPath + "?access_token=" + p.reader, nil, "alice", readOnly, nil},
		{"stream, token", clientAddress, streamPath + "?access_token=" + goodToken(nil), nil, "alice", readWrite, nil},
		{"stream, bad", clientAddress, streamPath + "?access_token=nonsense", nil, "", nil, errJWTMalformed},
		{"not a stream, key in the query", clientAddress, "/api/v1/tasks?access_token=" + p.admin, nil, "", nil, errNone},
		{"not a stream, another key in the query", clientAddress, "/api/v1/tasks?access_token=" + p.admin, bearer(p.reader), "alice", readOnly, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(test.target, test.headers...)
			r.RemoteAddr = test.remote
			// A stream asks again while it lives: nothing of the first time counts.
			for range 2 {
				got, err := chain.Authenticate(r)
				if test.want == nil {
					wantPrincipal(t, got, err, test.subject, test.scopes)
					continue
				}
				wantRefusal(t, err, test.want)
				if got.Subject != "" || got.Scopes != nil {
					t.Errorf("a refusal came with %+v", got)
				}
			}
		})
	}
}

func TestARefusalSaysWhatWasPresented(t *testing.T) {
	chain := newParts(t).chain(t, nil)
	for _, test := range []struct {
		name    string
		headers []string
		want    Presented
	}{
		{"nothing", nil, PresentedNothing},
		{"another scheme", []string{"Authorization: Basic YWxpY2U6cA=="}, PresentedNothing},
		{"an unknown key", []string{"Authorization: Bearer tbk_abc"}, PresentedAPIKey},
		{"an unknown key in its own header", []string{"X-API-Key: letmein"}, PresentedAPIKey},
		{"an expired token", []string{"Authorization: Bearer " + goodToken(map[string]any{"exp": noon.Add(-time.Hour).Unix()})}, PresentedJWT},
		{"a text that is no token", []string{"Authorization: Bearer letmein"}, PresentedJWT},
		{"an identity", []string{"X-Taskbridge-Subject: carol"}, PresentedIdentity},
		{"two credentials", []string{"Authorization: Bearer tbk_abc", "X-API-Key: tbk_abd"}, PresentedUnclear},
		{"what can be no credential", []string{"Authorization: Bearer a b"}, PresentedUnclear},
	} {
		r := request("/", test.headers...)
		r.RemoteAddr = clientAddress
		if _, err := chain.Authenticate(r); err == nil || PresentedOf(err) != test.want {
			t.Errorf("%s: %q for %v, want %q", test.name, PresentedOf(err), err, test.want)
		}
	}
	if got := PresentedOf(errors.New("of somebody else's authenticator")); got != PresentedUnclear {
		t.Errorf("an error of another kind: %q", got)
	}
}

func TestWhatIsTurnedOffIsNotLookedAt(t *testing.T) {
	p := newParts(t)
	const identity = "X-Taskbridge-Subject: carol"
	for _, test := range []struct {
		name    string
		change  func(*Options)
		remote  string
		target  string
		headers []string
		subject string // "": refused
		want    error
	}{
		{"keys alone, a token", func(o *Options) { o.JWT, o.Identity = nil, nil }, clientAddress, "/",
			[]string{"Authorization: Bearer " + goodToken(nil)}, "", refuse(PresentedJWT, "only API keys are accepted here")},
		{"tokens alone, a key", func(o *Options) { o.APIKeys, o.Identity = nil, nil }, clientAddress, "/",
			[]string{"Authorization: Bearer " + p.reader}, "", refuse(PresentedAPIKey, "API keys are not accepted here")},
		{"tokens alone, the header of keys", func(o *Options) { o.APIKeys, o.Identity = nil, nil }, clientAddress, "/",
			[]string{"X-API-Key: " + p.reader}, "", errNone},
		{"identity alone, with a token that is meant for the proxy", func(o *Options) { o.APIKeys, o.JWT = nil, nil }, proxyAddress, "/",
			[]string{identity, "Authorization: Bearer opaque"}, "carol", nil},
		{"identity alone, a key", func(o *Options) { o.APIKeys, o.JWT = nil, nil }, proxyAddress, "/",
			[]string{"Authorization: Bearer " + p.reader}, "", errNone},
		{"no identity, its header", func(o *Options) { o.Identity = nil }, proxyAddress, "/", []string{identity}, "", errNone},
		{"no token in the query", func(o *Options) { o.QueryToken = nil }, clientAddress, streamPath + "?access_token=" + p.reader, nil, "", errNone},
		{"no token as subprotocol", func(o *Options) { o.WebSocketToken = false }, clientAddress, "/",
			[]string{"Upgrade: websocket", "Sec-WebSocket-Protocol: bearer." + p.reader}, "", errNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(test.target, test.headers...)
			r.RemoteAddr = test.remote
			got, err := p.chain(t, test.change).Authenticate(r)
			if test.want != nil {
				wantRefusal(t, err, test.want)
				return
			}
			wantPrincipal(t, got, err, test.subject, readWrite)
		})
	}
}

func TestACredentialThatEndsIsRefusedInTheSameRequest(t *testing.T) {
	p := newParts(t)
	chain := p.chain(t, nil)
	r := request(streamPath, "Authorization: Bearer "+goodToken(map[string]any{"exp": noon.Add(time.Minute).Unix()}))
	got, err := chain.Authenticate(r)
	wantPrincipal(t, got, err, "alice", readWrite)
	p.clock.Advance(90 * time.Second) // with the leeway
	_, err = chain.Authenticate(r)
	wantRefusal(t, err, errClaimsExpired)
}

func TestAChainMustOfferSomething(t *testing.T) {
	if _, err := New(Options{WebSocketToken: true}); err == nil || !strings.HasPrefix(err.Error(), "auth: ") {
		t.Errorf("error %v", err)
	}
}

func TestAChainClosesItsParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	writeFile(t, path, "keys: []\n")
	keys, err := OpenAPIKeys(APIKeyOptions{File: path})
	if err != nil {
		t.Fatal(err)
	}
	jwks := filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, jwks, providerSet())
	j, err := OpenJWT(JWTOptions{Issuer: issuer, Audiences: []string{audience}, KeysFile: jwks})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := New(Options{APIKeys: keys, JWT: j})
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Close(); err != nil {
		t.Fatal(err)
	}
	<-keys.file.done
	<-j.keys.(*fileKeys).file.done
}

func TestTheChallengeSaysWhatIsAskedForAndWhyItWasRefused(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{errNone, `Bearer realm="taskbridge"`},
		{ErrUnauthenticated, `Bearer realm="taskbridge"`},
		{errClaimsExpired, `Bearer realm="taskbridge", error="invalid_token", error_description="the token has expired"`},
	} {
		if got := Challenge(test.err); got != test.want {
			t.Errorf("challenge of %q: %s, want %s", test.err, got, test.want)
		}
	}
}

func TestAnyoneIsTheGivenPrincipal(t *testing.T) {
	got, err := Anyone(Local()).Authenticate(request("/", "Authorization: Bearer nonsense"))
	wantPrincipal(t, got, err, "local", append(append([]taskbridge.Scope{}, readWrite...), worksOnly...))
}
