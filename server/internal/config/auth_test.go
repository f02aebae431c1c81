package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestWithAccessControlEveryAddressMayBeListenedOn(t *testing.T) {
	for _, address := range []string{":8080", "0.0.0.0:80", "[::]:80", "192.0.2.1:80", "127.0.0.1:0"} {
		c := load(t, []string{"--listen=" + address, "--auth-modes=apikey", "--auth-api-keys-file=keys.yaml"}, nil)
		if !c.Auth.On() || !c.Auth.Has(AuthAPIKey) || c.Auth.Has(AuthJWT) {
			t.Errorf("%+v", c.Auth)
		}
	}
}

func TestScopesAreMappedFromAMappingOrAList(t *testing.T) {
	want := map[string][]taskbridge.Scope{
		"viewer": {taskbridge.ScopeRead}, "a.b=c": {taskbridge.ScopeRead, taskbridge.ScopeWrite}, "nobody": nil,
		"pool": {taskbridge.ScopeWorker},
	}
	environ := []string{
		"TASKBRIDGE_AUTH_MODES=jwt", "TASKBRIDGE_AUTH_JWT_ISSUER=i", "TASKBRIDGE_AUTH_JWT_AUDIENCES=a", "TASKBRIDGE_AUTH_JWT_KEYS_FILE=k",
	}
	file := writeFile(t, "auth: {jwt: {scopeMap: {viewer: [tasks:read], a.b=c: [tasks:read, tasks:write], nobody: [], pool: [worker]}}}")
	for way, args := range map[string][]string{
		"file": {"--config", file},
		"flag": {"--auth-jwt-scope-map=viewer=tasks:read, a.b=c=tasks:read tasks:write,nobody=,pool=worker"},
	} {
		if diff := cmp.Diff(want, load(t, args, environ).Auth.JWT.ScopeMap); diff != "" {
			t.Errorf("%s: %s", way, diff)
		}
	}
}

func TestSecretsComeFromTheirSettingAndAFileAndAreNeverShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte("second secret\n\n third\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"TASKBRIDGE_AUTH_MODES=proxy", "TASKBRIDGE_AUTH_PROXY_SECRETS=first", "TASKBRIDGE_AUTH_PROXY_SECRETS_FILE=" + file,
		"TASKBRIDGE_AUTH_PROXY_TRUSTED=10.0.0.1,2001:db8::/32",
	}
	c := load(t, nil, environ)
	if diff := cmp.Diff([][]byte{[]byte("first"), []byte("second secret"), []byte("third")}, c.Auth.Proxy.Secrets); diff != "" {
		t.Error(diff)
	}
	if got := c.Auth.Proxy.Trusted; len(got) != 2 || got[0] != netip.MustParsePrefix("10.0.0.1/32") {
		t.Errorf("trusted %v", got)
	}
	s, _ := lookup("auth.proxy.secrets")
	if shown := s.parse.show(c); shown != "" {
		t.Errorf("shown as %q", shown)
	}
	_, err := Load([]string{"--config", writeFile(t, "auth: {modes: [proxy], proxy: {secrets: [12345]}}")}, nil)
	if err == nil || strings.Contains(err.Error(), "12345") {
		t.Errorf("%v", err)
	}
}
