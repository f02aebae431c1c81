package auth

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

var (
	secret    = bytes.Repeat([]byte("s"), minSecret)
	oldSecret = bytes.Repeat([]byte("o"), minSecret)
)

func prefixes(t *testing.T, texts ...string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, prefix)
	}
	return all
}

func newIdentity(t *testing.T, opts IdentityOptions) *Identity {
	t.Helper()
	identity, err := NewIdentity(opts)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// from is a request with headers whose connection is from that address.
func from(remote string, headers ...string) *http.Request {
	r := request("/", headers...)
	r.RemoteAddr = remote
	return r
}

func TestAnIdentityHeaderCountsFromTrustedPeersAlone(t *testing.T) {
	identity := newIdentity(t, IdentityOptions{TrustedProxies: prefixes(t, "10.1.0.0/16", "fd00::/8", "192.0.2.7/32")})
	const alice = "X-Taskbridge-Subject: alice"
	for _, test := range []struct {
		name, remote string
		headers      []string
		want         error // nil: alice
	}{
		{"IPv4", "10.1.2.3:4711", []string{alice}, nil},
		{"one address", "192.0.2.7:1", []string{alice}, nil},
		{"IPv6", "[fd00::1]:4711", []string{alice}, nil},
		{"IPv6 with a zone", "[fd00::1%eth0]:4711", []string{alice}, nil},
		{"IPv4 as IPv6", "[::ffff:10.1.2.3]:4711", []string{alice}, nil},
		{"who claims to be forwarded", "10.1.2.3:1", []string{alice, "X-Forwarded-For: 203.0.113.9"}, nil},

		{"another network", "10.2.0.1:4711", []string{alice}, errIdentityPeer},
		{"the neighbour", "192.0.2.8:1", []string{alice}, errIdentityPeer},
		{"claims to be forwarded by the proxy", "203.0.113.9:1", []string{alice, "X-Forwarded-For: 10.1.2.3"}, errIdentityPeer},
		{"claims to be the proxy", "203.0.113.9:1", []string{alice, "X-Real-Ip: 10.1.2.3", "Forwarded: for=10.1.2.3"}, errIdentityPeer},
		{"a Unix socket", "@", []string{alice}, errIdentityPeer},
		{"no address", "", []string{alice}, errIdentityPeer},
		{"no port", "10.1.2.3", []string{alice}, errIdentityPeer},
		{"loopback", "127.0.0.1:80", []string{alice}, errIdentityPeer},
		{"scopes alone", "203.0.113.9:1", []string{"X-Taskbridge-Scopes: admin"}, errIdentityPeer},
		{"empty header", "203.0.113.9:1", []string{"X-Taskbridge-Subject:  "}, errIdentityPeer},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, found, err := identity.read(from(test.remote, test.headers...))
			if test.want != nil {
				wantRefusal(t, err, test.want)
				return
			}
			if !found {
				t.Error("not found")
			}
			wantPrincipal(t, got, err, "alice", nil)
		})
	}
	if _, found, err := identity.read(from("203.0.113.9:1", "X-Other: alice")); found || err != nil {
		t.Errorf("without headers: found %v, error %v", found, err)
	}
}

func TestIdentityHeadersAreReadStrictly(t *testing.T) {
	const proxy = "10.1.2.3:4711"
	for _, test := range []struct {
		name     string
		defaults []taskbridge.Scope
		headers  []string
		subject  string
		scopes   []taskbridge.Scope
		want     error
	}{
		{"no scopes header", nil, []string{"X-User: alice"}, "alice", nil, nil},
		{"default scopes", readWrite, []string{"X-User: alice"}, "alice", readWrite, nil},
		{"scopes with spaces", readWrite, []string{"X-User: alice", "X-Groups: tasks:read"}, "alice", readOnly, nil},
		{"scopes with commas", nil, []string{"X-User: alice", "X-Groups: tasks:write,staff, tasks:read"}, "alice", readWrite, nil},
		{"a worker's scope", readWrite, []string{"X-User: alice", "X-Groups: worker"}, "alice", worksOnly, nil},
		{"none of ours", readWrite, []string{"X-User: alice", "X-Groups: staff"}, "alice", nil, nil},
		{"empty scopes", readWrite, []string{"X-User: alice", "X-Groups: "}, "alice", nil, nil},
		{"a name in UTF-8", nil, []string{"X-User: Zoë"}, "Zoë", nil, nil},
		{"255 bytes", nil, []string{"X-User: " + strings.Repeat("a", 255)}, strings.Repeat("a", 255), nil, nil},
		{"256 bytes", nil, []string{"X-User: " + strings.Repeat("a", 256)}, "", nil, errIdentitySubject},
		{"no UTF-8", nil, []string{"X-User: Zo\xeb"}, "", nil, errIdentitySubject},
		{"a control character", nil, []string{"X-User: a\tb"}, "", nil, errIdentitySubject},
		{"empty", nil, []string{"X-User: "}, "", nil, errIdentitySubject},
		{"scopes alone", nil, []string{"X-Groups: admin"}, "", nil, errIdentitySubject},
		{"two subjects", nil, []string{"X-User: alice", "X-User: root"}, "", nil, errIdentityTwice},
		{"two scopes", nil, []string{"X-User: alice", "X-Groups: tasks:read", "X-Groups: admin"}, "", nil, errIdentityTwice},
		{"scopes with a tab", nil, []string{"X-User: alice", "X-Groups: tasks:read\tadmin"}, "", nil, errIdentityScopes},
	} {
		t.Run(test.name, func(t *testing.T) {
			identity := newIdentity(t, IdentityOptions{
				SubjectHeader: "x-user", ScopesHeader: "X-GROUPS", DefaultScopes: test.defaults, TrustedProxies: prefixes(t, "10.0.0.0/8"),
			})
			got, _, err := identity.read(from(proxy, test.headers...))
			if test.want != nil {
				wantRefusal(t, err, test.want)
				return
			}
			wantPrincipal(t, got, err, test.subject, test.scopes)
		})
	}
}

// signedHeaders are those of an identity signed at noon, changed.
func signedHeaders(key []byte, subject, scopes string, changes ...string) []string {
	timestamp, signature := SignIdentity(key, subject, scopes, noon)
	headers := []string{"X-Taskbridge-Subject: " + subject, "X-Taskbridge-Timestamp: " + timestamp, "X-Taskbridge-Signature: " + signature}
	if scopes != "" {
		headers = append(headers, "X-Taskbridge-Scopes: "+scopes)
	}
	for _, change := range changes {
		name, value, _ := strings.Cut(change, ": ")
		kept := headers[:0]
		for _, header := range headers {
			if !strings.HasPrefix(header, name+":") {
				kept = append(kept, header)
			}
		}
		headers = kept
		if value != "-" {
			headers = append(headers, change)
		}
	}
	return headers
}

func TestASignedIdentityCountsFromAnywhereWhileItIsFresh(t *testing.T) {
	clock := newClock()
	identity := newIdentity(t, IdentityOptions{Secrets: [][]byte{secret, oldSecret}, MaxAge: time.Minute, DefaultScopes: readOnly, Clock: clock})
	_, good := SignIdentity(secret, "alice", "tasks:read", noon)
	for _, test := range []struct {
		name    string
		headers []string
		scopes  []taskbridge.Scope
		want    error
	}{
		{"good", signedHeaders(secret, "alice", "tasks:read tasks:write"), readWrite, nil},
		{"without scopes", signedHeaders(secret, "alice", ""), readOnly, nil},
		{"with the old secret", signedHeaders(oldSecret, "alice", "admin"), adminOnly, nil},
		{"upper-case digits", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Signature: "+strings.ToUpper(good)), readOnly, nil},

		{"with another secret", signedHeaders(bytes.Repeat([]byte("x"), 32), "alice", "admin"), nil, errSignatureWrong},
		{"another subject", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Subject: root"), nil, errSignatureWrong},
		{"more scopes", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Scopes: admin"), nil, errSignatureWrong},
		{"scopes added", signedHeaders(secret, "alice", "", "X-Taskbridge-Scopes: admin"), nil, errSignatureWrong},
		{"scopes taken away", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Scopes: -"), nil, errSignatureWrong},
		{"another time", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Timestamp: 1906545601"), nil, errSignatureWrong},
		{"the time otherwise", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Timestamp: +1906545600"), nil, errSignatureWrong},
		{"time is no number", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Timestamp: noon"), nil, errSignatureWrong},
		{"time over all bounds", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Timestamp: 99999999999999999999"), nil, errSignatureWrong},
		{"no time", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Timestamp: -"), nil, errSignatureMissing},
		{"no signature", signedHeaders(secret, "alice", "admin", "X-Taskbridge-Signature: -"), nil, errSignatureMissing},
		{"signature cut", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Signature: "+good[:62]), nil, errSignatureWrong},
		{"signature longer", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Signature: "+good+"00"), nil, errSignatureWrong},
		{"signature in other digits", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Signature: "+strings.Repeat("z", 64)), nil, errSignatureWrong},
		{"two signatures", append(signedHeaders(secret, "alice", "tasks:read"), "X-Taskbridge-Signature: "+good), nil, errIdentityTwice},
		{"the subject's end in the scopes", signedHeaders(secret, "alice", "tasks:read", "X-Taskbridge-Subject: alice\ntasks:read",
			"X-Taskbridge-Scopes: -"), nil, errIdentitySubject},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := identity.read(from("203.0.113.9:1", test.headers...))
			if test.want != nil {
				wantRefusal(t, err, test.want)
				return
			}
			wantPrincipal(t, got, err, "alice", test.scopes)
		})
	}
}

func TestARecordedSignatureIsGoodForItsAgeAndNoLonger(t *testing.T) {
	clock := fakes.NewManualClock(noon.Add(-clockSkew - time.Second))
	identity := newIdentity(t, IdentityOptions{Secrets: [][]byte{secret}, MaxAge: time.Minute, Clock: clock})
	r := from("203.0.113.9:1", signedHeaders(secret, "alice", "tasks:read")...)
	for _, step := range []struct {
		forward time.Duration
		want    error
	}{
		{0, errSignatureEarly}, // the proxy's clock is too far ahead
		{time.Second, nil},
		{clockSkew, nil}, // noon
		{time.Minute - time.Nanosecond, nil},
		{time.Nanosecond, errSignatureExpired},
		{time.Hour, errSignatureExpired},
	} {
		clock.Advance(step.forward)
		got, _, err := identity.read(r)
		if step.want != nil {
			wantRefusal(t, err, step.want)
			continue
		}
		wantPrincipal(t, got, err, "alice", readOnly)
	}
}

func TestWhereBothAreAskedForAddressAndSignatureMustHold(t *testing.T) {
	identity := newIdentity(t, IdentityOptions{
		TrustedProxies: prefixes(t, "10.0.0.0/8"), Secrets: [][]byte{secret}, Clock: newClock(),
	})
	headers := signedHeaders(secret, "alice", "tasks:read")
	got, _, err := identity.read(from("10.1.2.3:1", headers...))
	wantPrincipal(t, got, err, "alice", readOnly)
	_, _, err = identity.read(from("203.0.113.9:1", headers...))
	wantRefusal(t, err, errIdentityPeer)
	_, _, err = identity.read(from("10.1.2.3:1", "X-Taskbridge-Subject: alice"))
	wantRefusal(t, err, errSignatureMissing)
}

func TestTheSignatureIsThatOfTheDocumentedLines(t *testing.T) {
	// printf 'taskbridge-identity-v1\n1906545600\nalice\ntasks:read' | openssl dgst -sha256 -hmac "$(printf 's%.0s' {1..32})"
	const want = "ecdb117f83f94b08711da7b568eb067a9f5892e5a88e7899b87c959e2fce676a"
	timestamp, signature := SignIdentity(secret, "alice", "tasks:read", noon)
	if timestamp != "1906545600" || signature != want {
		t.Errorf("timestamp %s, signature %s, want 1906545600 and %s", timestamp, signature, want)
	}
}

func TestIdentityOptionsAreChecked(t *testing.T) {
	proxies := prefixes(t, "10.0.0.0/8")
	for name, test := range map[string]struct {
		opts IdentityOptions
		want string
	}{
		"nothing":          {IdentityOptions{}, "TrustedProxies or Secrets must be given"},
		"trusts all":       {IdentityOptions{TrustedProxies: prefixes(t, "0.0.0.0/0")}, "would trust every address"},
		"trusts all of v6": {IdentityOptions{TrustedProxies: prefixes(t, "10.0.0.0/8", "::/0")}, "would trust every address"},
		"invalid prefix":   {IdentityOptions{TrustedProxies: make([]netip.Prefix, 1)}, "invalid prefix"},
		"IPv4 as IPv6":     {IdentityOptions{TrustedProxies: prefixes(t, "::ffff:10.0.0.0/104")}, "in its IPv4 form"},
		"short secret":     {IdentityOptions{Secrets: [][]byte{secret, []byte("short")}}, "must have 32 bytes"},
		"no name":          {IdentityOptions{SubjectHeader: "X User", TrustedProxies: proxies}, "SubjectHeader is no name of a header"},
		"twice":            {IdentityOptions{SubjectHeader: "X-User", ScopesHeader: "x-user", TrustedProxies: proxies}, "ScopesHeader has the name of another"},
		"authorization":    {IdentityOptions{SubjectHeader: "authorization", TrustedProxies: proxies}, "must not be Authorization"},
		"forwarded for":    {IdentityOptions{SubjectHeader: "x-forwarded-for", TrustedProxies: proxies}, "must not be X-Forwarded-For"},
		"age":              {IdentityOptions{MaxAge: 48 * time.Hour, TrustedProxies: proxies}, "MaxAge must be"},
		"unknown scope":    {IdentityOptions{DefaultScopes: []taskbridge.Scope{"x"}, TrustedProxies: proxies}, `DefaultScopes has "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewIdentity(test.opts)
			if err == nil || !strings.HasPrefix(err.Error(), "auth: IdentityOptions.") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "short") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
	if _, err := NewIdentity(IdentityOptions{TrustedProxies: prefixes(t, "0.0.0.0/0"), Secrets: [][]byte{secret}}); err != nil {
		t.Errorf("every address, with a signature, is refused: %v", err)
	}
}
