package auth

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestAGoodTokenOfEveryAlgorithmIsAccepted(t *testing.T) {
	v := newVerifier(t, nil)
	for name, text := range map[string]string{
		"RS256":               token(jose.RS256, "rs", "rs", claimsOf(nil)),
		"PS256":               token(jose.PS256, "ps", "ps", claimsOf(nil)),
		"ES256":               token(jose.ES256, "es", "es", claimsOf(nil)),
		"EdDSA":               token(jose.EdDSA, "ed", "ed", claimsOf(nil)),
		"no key id":           token(jose.PS256, "ps", "-", claimsOf(nil)),
		"one audience of two": goodToken(map[string]any{"aud": []string{"shop", "other"}}),
		"times with fraction": goodToken(map[string]any{"exp": float64(noon.Unix()) + 5.5}),
		"without nbf":         goodToken(map[string]any{"nbf": nil, "iat": nil}),
		"type at+jwt": rawToken(`{"alg":"RS256","kid":"rs","typ":"application/AT+JWT"}`, payload(t, nil),
			signRS256("rs")),
		"no type": rawToken(`{"alg":"RS256","kid":"rs"}`, payload(t, nil), signRS256("rs")),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), text)
			wantPrincipal(t, got, err, "alice", readWrite)
		})
	}
}

func payload(t *testing.T, changes map[string]any) []byte {
	t.Helper()
	raw, err := json.Marshal(claimsOf(changes))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestABadTokenIsRefusedWithItsReason(t *testing.T) {
	v := newVerifier(t, nil)
	public := signers()["rs"].(*rsa.PrivateKey).Public().(*rsa.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	embedded, err := json.Marshal(publicJWK("foreign"))
	if err != nil {
		t.Fatal(err)
	}
	good := goodToken(nil)
	parts := strings.Split(good, ".")
	rs := func(header string) string { return rawToken(header, payload(t, nil), signRS256("rs")) }

	for _, test := range []struct {
		name  string
		token string
		want  error
	}{
		{"expired", goodToken(map[string]any{"exp": noon.Add(-time.Minute).Unix()}), errClaimsExpired},
		{"expired since 1970", goodToken(map[string]any{"exp": 0}), errClaimsExpired},
		{"does not expire", goodToken(map[string]any{"exp": nil}), errClaimsNoExpiry},
		{"expires never", goodToken(map[string]any{"exp": json.Number("1e300")}), errClaimsForm},
		{"expiry is text", goodToken(map[string]any{"exp": "2031"}), errClaimsForm},
		{"not yet valid", goodToken(map[string]any{"nbf": noon.Add(time.Minute).Unix()}), errClaimsEarly},
		{"wrong issuer", goodToken(map[string]any{"iss": "https://id.example.evil"}), errClaimsIssuer},
		{"issuer with a slash more", goodToken(map[string]any{"iss": issuer + "/"}), errClaimsIssuer},
		{"no issuer", goodToken(map[string]any{"iss": nil}), errClaimsIssuer},
		{"issuer is a list", goodToken(map[string]any{"iss": []string{issuer}}), errClaimsForm},
		{"wrong audience", goodToken(map[string]any{"aud": "shop"}), errClaimsAudience},
		{"audiences of others", goodToken(map[string]any{"aud": []string{"shop", "taskbridge2"}}), errClaimsAudience},
		{"no audience", goodToken(map[string]any{"aud": nil}), errClaimsAudience},
		{"audience is a number", goodToken(map[string]any{"aud": 7}), errClaimsForm},

		{"no subject", goodToken(map[string]any{"sub": nil}), errClaimsSubject},
		{"empty subject", goodToken(map[string]any{"sub": ""}), errClaimsSubject},
		{"oversize subject", goodToken(map[string]any{"sub": strings.Repeat("a", 256)}), errClaimsSubject},
		{"subject with a newline", goodToken(map[string]any{"sub": "alice\nroot"}), errClaimsSubject},
		{"subject is half a character", tokenOver(jose.ES256, "es", "es",
			[]byte(strings.Replace(string(payload(t, nil)), "alice", `\ud800`, 1))), errClaimsSubject},
		{"subject is a number", goodToken(map[string]any{"sub": 7}), errClaimsForm},
		{"a claim twice", tokenOver(jose.ES256, "es", "es",
			[]byte(`{"sub":"root",`+string(payload(t, nil))[1:])), errClaimsForm},
		{"claims are a list", tokenOver(jose.ES256, "es", "es", []byte(`[]`)), errClaimsForm},
		{"claims are no JSON", tokenOver(jose.ES256, "es", "es", []byte(`hello`)), errClaimsForm},
		{"scopes are a number", goodToken(map[string]any{"scope": 7}), errClaimsScopes},
		{"scopes are a list of numbers", goodToken(map[string]any{"scope": []int{7}}), errClaimsScopes},

		{"algorithm none", rawToken(`{"alg":"none"}`, payload(t, nil), unsigned), errJWTAlgorithm},
		{"algorithm None", rawToken(`{"alg":"None","kid":"rs"}`, payload(t, nil), unsigned), errJWTAlgorithm},
		{"no algorithm", rawToken(`{"kid":"rs"}`, payload(t, nil), unsigned), errJWTAlgorithm},
		{"HS256 with the public key as PEM", rawToken(`{"alg":"HS256","kid":"rs"}`, payload(t, nil), signHS256(asPEM)), errJWTAlgorithm},
		{"HS256 with the public key as DER", rawToken(`{"alg":"HS256","kid":"rs"}`, payload(t, nil), signHS256(der)), errJWTAlgorithm},
		{"HS256 with the modulus", rawToken(`{"alg":"HS256","kid":"rs"}`, payload(t, nil), signHS256(public.N.Bytes())), errJWTAlgorithm},
		{"HS256 with nothing", rawToken(`{"alg":"HS256","kid":"rs"}`, payload(t, nil), signHS256(nil)), errJWTAlgorithm},
		{"RS384", token(jose.RS384, "rs", "rs", claimsOf(nil)), errJWTAlgorithm},
		{"says ES256, key is RSA", rs(`{"alg":"ES256","kid":"rs"}`), errJWTKey},
		{"says RS256, key is EC", token(jose.RS256, "rs", "es", claimsOf(nil)), errJWTKey},

		{"unknown key", token(jose.ES256, "es", "es2", claimsOf(nil)), errJWTKey},
		{"a foreign key of a known name", token(jose.RS256, "foreign", "rs", claimsOf(nil)), errJWTSignature},
		{"a foreign key without a name", token(jose.RS256, "foreign", "-", claimsOf(nil)), errJWTKey},
		{"brings its own key", rawToken(`{"alg":"RS256","jwk":`+string(embedded)+`}`, payload(t, nil), signRS256("foreign")), errJWTKey},
		{"brings its own key under a known name", rawToken(`{"alg":"RS256","kid":"rs","jwk":`+string(embedded)+`}`, payload(t, nil),
			signRS256("foreign")), errJWTSignature},
		{"names a set of its own", rawToken(`{"alg":"RS256","kid":"rs","jku":"http://127.0.0.1:1/keys"}`, payload(t, nil),
			signRS256("foreign")), errJWTSignature},
		{"demands an extension", rs(`{"alg":"RS256","kid":"rs","crit":["exp2"],"exp2":1}`), errJWTSignature},
		{"claims of another token", parts[0] + "." + strings.Split(goodToken(map[string]any{"sub": "root"}), ".")[1] + "." + parts[2], errJWTSignature},
		{"no signature", parts[0] + "." + parts[1] + ".", errJWTSignature},

		{"a logout token", rs(`{"alg":"RS256","kid":"rs","typ":"logout+jwt"}`), errJWTType},
		{"type is a number", rs(`{"alg":"RS256","kid":"rs","typ":7}`), errJWTType},
		{"two parts", parts[0] + "." + parts[1], errJWTMalformed},
		{"four parts", good + ".", errJWTMalformed},
		{"five parts", "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d", errJWTMalformed},
		{"no base64", "%%%." + parts[1] + "." + parts[2], errJWTMalformed},
		{"header is no JSON", "aGVsbG8." + parts[1] + "." + parts[2], errJWTMalformed},
		{"in the JSON form", `{"payload":"","protected":"","signature":""}`, errJWTMalformed},
		{"dots", "..", errJWTAlgorithm},
		{"empty", "", errJWTMalformed},
		{"with a space", " " + good, errJWTMalformed},
		{"oversize", good + strings.Repeat("A", maxToken), errTokenLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), test.token)
			wantRefusal(t, err, test.want)
			if got.Subject != "" || got.Scopes != nil {
				t.Errorf("a refused token gave the principal %+v", got)
			}
		})
	}
}

func TestATokensTimeIsAsLongAsLeewayAllows(t *testing.T) {
	text := goodToken(map[string]any{"nbf": noon.Add(30 * time.Second).Unix(), "exp": noon.Add(time.Minute).Unix()})
	v := newVerifier(t, nil) // 30 s
	for _, step := range []struct {
		forward time.Duration
		want    error
	}{
		{0, nil}, // nbf - leeway
		{90*time.Second - time.Nanosecond, nil},
		{time.Nanosecond, errClaimsExpired}, // exp + leeway
	} {
		v.clock.Advance(step.forward)
		got, err := v.Verify(t.Context(), text)
		if step.want == nil {
			wantPrincipal(t, got, err, "alice", readWrite)
		} else {
			wantRefusal(t, err, step.want)
		}
	}
	strict := newVerifier(t, func(o *JWTOptions) { o.Leeway = -1 })
	_, err := strict.Verify(t.Context(), text)
	wantRefusal(t, err, errClaimsEarly)
	strict.clock.Advance(30 * time.Second)
	got, err := strict.Verify(t.Context(), text)
	wantPrincipal(t, got, err, "alice", readWrite)
	strict.clock.Advance(30 * time.Second)
	_, err = strict.Verify(t.Context(), text)
	wantRefusal(t, err, errClaimsExpired)
}

func TestOnlyTheAlgorithmsTurnedOnAreAccepted(t *testing.T) {
	v := newVerifier(t, func(o *JWTOptions) { o.Algorithms = []string{"ES256"} })
	got, err := v.Verify(t.Context(), goodToken(nil))
	wantPrincipal(t, got, err, "alice", readWrite)
	_, err = v.Verify(t.Context(), token(jose.RS256, "rs", "rs", claimsOf(nil)))
	wantRefusal(t, err, errJWTAlgorithm)
}

func TestScopesComeFromTheClaimAsConfigured(t *testing.T) {
	roles := map[string][]taskbridge.Scope{
		"operator": {taskbridge.ScopeAdmin},
		"staff":    {taskbridge.ScopeWrite, taskbridge.ScopeRead},
		"pool":     {taskbridge.ScopeWorker},
	}
	for _, test := range []struct {
		name   string
		opts   JWTOptions
		claims map[string]any
		want   []taskbridge.Scope
	}{
		{"a text", JWTOptions{}, map[string]any{"scope": "tasks:read"}, readOnly},
		{"a text with more spaces", JWTOptions{}, map[string]any{"scope": "  tasks:write   tasks:read tasks:write"}, readWrite},
		{"scp where there is no scope", JWTOptions{}, map[string]any{"scope": nil, "scp": []string{"admin"}}, adminOnly},
		{"scope before scp", JWTOptions{}, map[string]any{"scope": "tasks:read", "scp": "admin"}, readOnly},
		{"a worker's", JWTOptions{}, map[string]any{"scope": "worker"}, worksOnly},
		{"a worker's, mapped", JWTOptions{ScopeMap: roles}, map[string]any{"scope": "pool worker"}, worksOnly},
		{"a worker's by default", JWTOptions{DefaultScopes: worksOnly}, map[string]any{"scope": nil}, worksOnly},
		{"none of ours", JWTOptions{}, map[string]any{"scope": "openid Admin tasks:*"}, nil},
		{"empty", JWTOptions{DefaultScopes: readOnly}, map[string]any{"scope": ""}, nil},
		{"absent", JWTOptions{}, map[string]any{"scope": nil}, nil},
		{"absent, with a default", JWTOptions{DefaultScopes: readWrite}, map[string]any{"scope": nil}, readWrite},
		{"there, with a default", JWTOptions{DefaultScopes: readWrite}, map[string]any{"scope": "openid"}, nil},
		{"another claim", JWTOptions{ScopeClaim: "perms"}, map[string]any{"perms": []string{"tasks:read"}}, readOnly},
		{"another claim, absent", JWTOptions{ScopeClaim: "perms"}, nil, nil},
		{"inside an object", JWTOptions{ScopeClaim: "realm.roles"},
			map[string]any{"realm": map[string]any{"roles": []string{"tasks:read"}}}, readOnly},
		{"a name with dots", JWTOptions{ScopeClaim: "https://x.example/roles"},
			map[string]any{"https://x.example/roles": "tasks:read"}, readOnly},
		{"a path into a text", JWTOptions{ScopeClaim: "sub.roles", DefaultScopes: readOnly}, nil, readOnly},
		{"mapped", JWTOptions{ScopeClaim: "roles", ScopeMap: roles}, map[string]any{"roles": []string{"staff", "x"}}, readWrite},
		{"mapped to more", JWTOptions{ScopeClaim: "roles", ScopeMap: roles}, map[string]any{"roles": "operator staff"},
			append(append([]taskbridge.Scope{}, readWrite...), adminOnly...)},
		{"a scope's own name, with a map", JWTOptions{ScopeMap: roles}, map[string]any{"scope": "admin"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newVerifier(t, func(o *JWTOptions) {
				o.ScopeClaim, o.ScopeMap, o.DefaultScopes = test.opts.ScopeClaim, test.opts.ScopeMap, test.opts.DefaultScopes
			})
			got, err := v.Verify(t.Context(), goodToken(test.claims))
			wantPrincipal(t, got, err, "alice", test.want)
		})
	}
}

func TestTheSubjectComesFromTheClaimConfigured(t *testing.T) {
	v := newVerifier(t, func(o *JWTOptions) { o.SubjectClaim = "client.id" })
	got, err := v.Verify(t.Context(), goodToken(map[string]any{"client": map[string]any{"id": "robot"}}))
	wantPrincipal(t, got, err, "robot", readWrite)
	_, err = v.Verify(t.Context(), goodToken(nil)) // has a sub
	wantRefusal(t, err, errClaimsSubject)
}

func TestJWTOptionsAreChecked(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "keys.json")
	good := JWTOptions{Issuer: issuer, Audiences: []string{audience}, KeysURL: "https://id.example/keys"}
	for name, test := range map[string]struct {
		change func(*JWTOptions)
		want   string
	}{
		"no issuer":        {func(o *JWTOptions) { o.Issuer = "" }, "JWTOptions.Issuer must not be empty"},
		"no audience":      {func(o *JWTOptions) { o.Audiences = nil }, "JWTOptions.Audiences must have"},
		"empty audience":   {func(o *JWTOptions) { o.Audiences = []string{""} }, "JWTOptions.Audiences must have"},
		"HS256":            {func(o *JWTOptions) { o.Algorithms = []string{"RS256", "HS256"} }, `JWTOptions.Algorithms has "HS256"`},
		"none":             {func(o *JWTOptions) { o.Algorithms = []string{"none"} }, `JWTOptions.Algorithms has "none"`},
		"leeway":           {func(o *JWTOptions) { o.Leeway = time.Hour }, "JWTOptions.Leeway must be at most"},
		"unknown scope":    {func(o *JWTOptions) { o.DefaultScopes = []taskbridge.Scope{"x"} }, `JWTOptions.DefaultScopes has "x"`},
		"unknown in map":   {func(o *JWTOptions) { o.ScopeMap = map[string][]taskbridge.Scope{"r": {"x"}} }, `JWTOptions.ScopeMap of "r" has "x"`},
		"no keys":          {func(o *JWTOptions) { o.KeysURL = "" }, "JWTOptions.KeysURL or KeysFile"},
		"two sets of keys": {func(o *JWTOptions) { o.KeysFile = missing }, "JWTOptions.KeysURL or KeysFile"},
		"missing file":     {func(o *JWTOptions) { o.KeysURL, o.KeysFile = "", missing }, missing},
		"no TLS":           {func(o *JWTOptions) { o.KeysURL = "http://id.example/keys" }, "unless its host is loopback"},
		"nearly loopback":  {func(o *JWTOptions) { o.KeysURL = "http://127.0.0.1.evil.example/" }, "unless its host is loopback"},
		"another scheme":   {func(o *JWTOptions) { o.KeysURL = "file:///etc/keys" }, "must be an https URL"},
		"a path":           {func(o *JWTOptions) { o.KeysURL = "/keys" }, "must be an https URL"},
		"a password":       {func(o *JWTOptions) { o.KeysURL = "https://me:hunter2@id.example/keys" }, "must not have a user or password"},
		"a control byte":   {func(o *JWTOptions) { o.KeysURL = "https://id.example/\x7f" }, "is no URL"},
		"negative":         {func(o *JWTOptions) { o.FetchTimeout = -1 }, "must not be negative"},
		"stale too soon":   {func(o *JWTOptions) { o.MaxStale = time.Minute }, "must not be shorter"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := good
			test.change(&opts)
			j, err := OpenJWT(opts)
			if err == nil {
				t.Error("accepted")
				if err := j.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if !strings.HasPrefix(err.Error(), "auth: ") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q, want one with %q", err, test.want)
			}
		})
	}
	for _, address := range []string{"http://127.0.0.1:8080/keys", "http://[::1]/keys", "http://localhost/keys", "http://id.localhost/"} {
		if err := checkKeyURL(address); err != nil {
			t.Errorf("%s is refused: %v", address, err)
		}
	}
}

func TestNoReasonHoldsAnythingOfTheToken(t *testing.T) {
	v := newVerifier(t, nil)
	const secret = "hunter2hunter2"
	for _, text := range []string{
		secret, secret + "." + secret + "." + secret,
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"`+secret+`"}`)) + "..",
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"`+secret+`"}`)) + "." + secret + ".",
		goodToken(map[string]any{"iss": secret}),
	} {
		_, err := v.Verify(t.Context(), text)
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(Challenge(err), secret) {
			t.Errorf("error %q", err)
		}
	}
}

func BenchmarkJWTVerify(b *testing.B) {
	v := newVerifier(b, nil)
	for _, test := range []struct {
		algorithm jose.SignatureAlgorithm
		key       string
	}{{jose.RS256, "rs"}, {jose.PS256, "ps"}, {jose.ES256, "es"}, {jose.EdDSA, "ed"}} {
		b.Run(string(test.algorithm), func(b *testing.B) {
			text := token(test.algorithm, test.key, test.key, claimsOf(nil))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
