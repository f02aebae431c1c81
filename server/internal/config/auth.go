package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// AuthMode is a way in which callers prove who they are.
type AuthMode string

// The modes. AuthNone stands alone; the others may be combined.
const (
	AuthNone   AuthMode = "none"
	AuthAPIKey AuthMode = "apikey"
	AuthJWT    AuthMode = "jwt"
	AuthProxy  AuthMode = "proxy"
)

// Auth says who may use the server.
type Auth struct {
	Modes []AuthMode
	// QueryToken lets streams be opened with ?access_token=.
	QueryToken bool
	// WebSocketToken lets a handshake carry the token as a subprotocol.
	WebSocketToken bool
	APIKeys        APIKeys
	JWT            JWT
	Proxy          Proxy
}

// Has reports whether the mode is on.
func (a *Auth) Has(mode AuthMode) bool { return slices.Contains(a.Modes, mode) }

// On reports whether there is access control at all.
func (a *Auth) On() bool { return !a.Has(AuthNone) }

// APIKeys is the mode apikey.
type APIKeys struct {
	File                     string
	ReloadInterval, MaxStale time.Duration
}

// JWT is the mode jwt.
type JWT struct {
	Issuer                string
	Audiences, Algorithms []string
	// Leeway of 0 means none.
	Leeway time.Duration
	// SubjectClaim and ScopeClaim are empty for what is usual.
	SubjectClaim, ScopeClaim string
	// ScopeMap is nil where scopes have our names.
	ScopeMap          map[string][]taskbridge.Scope
	DefaultScopes     []taskbridge.Scope
	KeysURL, KeysFile string
	RefreshInterval   time.Duration
	FetchTimeout      time.Duration
	ReloadInterval    time.Duration
	MaxStale          time.Duration
}

// Proxy is the mode proxy.
type Proxy struct {
	SubjectHeader, ScopesHeader, TimestampHeader, SignatureHeader string

	DefaultScopes []taskbridge.Scope
	Trusted       []netip.Prefix
	// Secrets are those of auth.proxy.secrets and of the file together.
	Secrets     [][]byte
	SecretsFile string
	MaxAge      time.Duration
}

func defaultAuth() Auth {
	return Auth{
		Modes:          []AuthMode{AuthNone},
		WebSocketToken: true,
		APIKeys:        APIKeys{ReloadInterval: 2 * time.Second, MaxStale: 5 * time.Minute},
		JWT: JWT{
			Leeway: 30 * time.Second, SubjectClaim: "sub", RefreshInterval: 5 * time.Minute, FetchTimeout: 5 * time.Second,
			ReloadInterval: 2 * time.Second, MaxStale: time.Hour,
		},
		Proxy: Proxy{
			SubjectHeader: "X-Taskbridge-Subject", ScopesHeader: "X-Taskbridge-Scopes",
			TimestampHeader: "X-Taskbridge-Timestamp", SignatureHeader: "X-Taskbridge-Signature", MaxAge: 5 * time.Minute,
		},
	}
}

// authGroup is the part of the table of settings.
var authGroup = group{"Access control", []setting{
	{"auth.modes", "auth-modes", "MODE,…", "how callers prove who they are: none (loopback only), or any of apikey, jwt and proxy", modes()},
	{"auth.queryToken", "auth-query-token", hintBool, "let streams be opened with ?access_token=, which ends up in logs on the way",
		toggle(func(c *Config) *bool { return &c.Auth.QueryToken })},
	{"auth.webSocketToken", "auth-websocket-token", hintBool, "let WebSockets be opened with the subprotocol bearer.TOKEN",
		toggle(func(c *Config) *bool { return &c.Auth.WebSocketToken })},

	{"auth.apiKeys.file", "auth-api-keys-file", "FILE", "API keys, as keygen prints them",
		text(func(c *Config) *string { return &c.Auth.APIKeys.File })},
	{"auth.apiKeys.reloadInterval", "auth-api-keys-reload-interval", "DURATION", "time within which a change of it holds",
		duration(func(c *Config) *time.Duration { return &c.Auth.APIKeys.ReloadInterval }, 10*time.Millisecond, day)},
	{"auth.apiKeys.maxStale", "auth-api-keys-max-stale", "DURATION", "time for which keys are good while the file is missing or broken",
		duration(func(c *Config) *time.Duration { return &c.Auth.APIKeys.MaxStale }, time.Millisecond, 30*day)},

	{"auth.jwt.issuer", "auth-jwt-issuer", "TEXT", "what a token's iss must be",
		text(func(c *Config) *string { return &c.Auth.JWT.Issuer })},
	{"auth.jwt.audiences", "auth-jwt-audiences", "NAME,…", "names of this server, one of which its aud must have",
		list(func(c *Config) *[]string { return &c.Auth.JWT.Audiences })},
	{"auth.jwt.algorithms", "auth-jwt-algorithms", "NAME,…", "signatures that are taken, of RS256, PS256, ES256 and EdDSA (default: all)",
		list(func(c *Config) *[]string { return &c.Auth.JWT.Algorithms })},
	{"auth.jwt.leeway", "auth-jwt-leeway", "DURATION", "how far clocks may be apart",
		duration(func(c *Config) *time.Duration { return &c.Auth.JWT.Leeway }, 0, 10*time.Minute)},
	{"auth.jwt.subjectClaim", "auth-jwt-subject-claim", "NAME", "claim that names the owner of tasks",
		text(func(c *Config) *string { return &c.Auth.JWT.SubjectClaim })},
	{"auth.jwt.scopeClaim", "auth-jwt-scope-claim", "NAME", "claim that has the scopes (default: scope, else scp)",
		text(func(c *Config) *string { return &c.Auth.JWT.ScopeClaim })},
	{"auth.jwt.scopeMap", "auth-jwt-scope-map", "'VALUE=SCOPE…,…'", "which scopes a value of it grants; a mapping in the file (default: those of the same name)",
		scopeMap(func(c *Config) *map[string][]taskbridge.Scope { return &c.Auth.JWT.ScopeMap })},
	{"auth.jwt.defaultScopes", "auth-jwt-default-scopes", "SCOPE,…", "scopes of tokens without the claim",
		scopes(func(c *Config) *[]taskbridge.Scope { return &c.Auth.JWT.DefaultScopes })},
	{"auth.jwt.keysURL", "auth-jwt-keys-url", "URL", "where the issuer publishes its keys (JWKS)",
		text(func(c *Config) *string { return &c.Auth.JWT.KeysURL })},
	{"auth.jwt.refreshInterval", "auth-jwt-refresh-interval", "DURATION", "time between two fetches of them",
		duration(func(c *Config) *time.Duration { return &c.Auth.JWT.RefreshInterval }, 10*time.Millisecond, day)},
	{"auth.jwt.fetchTimeout", "auth-jwt-fetch-timeout", "DURATION", "time for a fetch",
		duration(func(c *Config) *time.Duration { return &c.Auth.JWT.FetchTimeout }, time.Millisecond, time.Hour)},
	{"auth.jwt.keysFile", "auth-jwt-keys-file", "FILE", "the keys in a file instead",
		text(func(c *Config) *string { return &c.Auth.JWT.KeysFile })},
	{"auth.jwt.reloadInterval", "auth-jwt-reload-interval", "DURATION", "time within which a change of it holds",
		duration(func(c *Config) *time.Duration { return &c.Auth.JWT.ReloadInterval }, 10*time.Millisecond, day)},
	{"auth.jwt.maxStale", "auth-jwt-max-stale", "DURATION", "time for which keys are good while they cannot be had",
		duration(func(c *Config) *time.Duration { return &c.Auth.JWT.MaxStale }, time.Millisecond, 30*day)},

	{"auth.proxy.subjectHeader", "auth-proxy-subject-header", "NAME", "header that names the owner of tasks",
		text(func(c *Config) *string { return &c.Auth.Proxy.SubjectHeader })},
	{"auth.proxy.scopesHeader", "auth-proxy-scopes-header", "NAME", "header that has the scopes",
		text(func(c *Config) *string { return &c.Auth.Proxy.ScopesHeader })},
	{"auth.proxy.timestampHeader", "auth-proxy-timestamp-header", "NAME", "header with the time of the signature",
		text(func(c *Config) *string { return &c.Auth.Proxy.TimestampHeader })},
	{"auth.proxy.signatureHeader", "auth-proxy-signature-header", "NAME", "header with the signature",
		text(func(c *Config) *string { return &c.Auth.Proxy.SignatureHeader })},
	{"auth.proxy.defaultScopes", "auth-proxy-default-scopes", "SCOPE,…", "scopes of requests without the header",
		scopes(func(c *Config) *[]taskbridge.Scope { return &c.Auth.Proxy.DefaultScopes })},
	{"auth.proxy.trusted", "auth-proxy-trusted", "ADDRESS,…", "addresses or prefixes from which the headers are taken",
		prefixes(func(c *Config) *[]netip.Prefix { return &c.Auth.Proxy.Trusted })},
	{"auth.proxy.secrets", "auth-proxy-secrets", "SECRET,…", "secrets that sign the headers, 32 bytes or more each; a flag is seen by all users of the machine",
		secrets(func(c *Config) *[][]byte { return &c.Auth.Proxy.Secrets })},
	{"auth.proxy.secretsFile", "auth-proxy-secrets-file", "FILE", "more of them, one a line",
		text(func(c *Config) *string { return &c.Auth.Proxy.SecretsFile })},
	{"auth.proxy.maxAge", "auth-proxy-max-age", "DURATION", "time for which a signature is good",
		duration(func(c *Config) *time.Duration { return &c.Auth.Proxy.MaxAge }, time.Second, day)},
}}

// completeAuth reads what other files hold and checks that the modes have what
// they need, and nothing that belongs to a mode that is off: who gives a file of
// keys means it to be asked for.
func (c *Config) completeAuth() error {
	a := &c.Auth
	if path := a.Proxy.SecretsFile; path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return c.invalid("auth.proxy.secretsFile", fmt.Errorf("cannot be read: %w", err))
		}
		for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
			if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
				a.Proxy.Secrets = append(a.Proxy.Secrets, bytes.Clone(line))
			}
		}
	}
	for prefix, mode := range map[string]AuthMode{"auth.apiKeys.": AuthAPIKey, "auth.jwt.": AuthJWT, "auth.proxy.": AuthProxy} {
		for _, key := range slices.Sorted(maps.Keys(c.sources)) {
			if strings.HasPrefix(key, prefix) && !a.Has(mode) {
				return c.invalid(key, fmt.Errorf("has no meaning: auth.modes does not have %s", mode))
			}
		}
	}
	missing := func(key string) error { return c.invalid(key, errors.New("must be set for this mode of auth.modes")) }
	switch {
	case a.Has(AuthAPIKey) && a.APIKeys.File == "":
		return missing("auth.apiKeys.file")
	case a.Has(AuthJWT) && a.JWT.Issuer == "":
		return missing("auth.jwt.issuer")
	case a.Has(AuthJWT) && len(a.JWT.Audiences) == 0:
		return missing("auth.jwt.audiences")
	case a.Has(AuthJWT) && (a.JWT.KeysURL == "") == (a.JWT.KeysFile == ""):
		return c.invalid("auth.jwt.keysURL", errors.New("or auth.jwt.keysFile must be set, and not both"))
	case a.Has(AuthProxy) && len(a.Proxy.Trusted) == 0 && len(a.Proxy.Secrets) == 0:
		return c.invalid("auth.proxy.trusted", errors.New("or auth.proxy.secrets must be set: without them anybody could name himself"))
	}
	return nil
}

func modes() parser {
	names := list(func(c *Config) *[]string { return &c.texts })
	return parser{
		func(c *Config, raw any) error {
			if err := names.set(c, raw); err != nil {
				return err
			}
			var found []AuthMode
			for _, name := range c.texts {
				mode := AuthMode(name)
				if !slices.Contains([]AuthMode{AuthNone, AuthAPIKey, AuthJWT, AuthProxy}, mode) {
					return fmt.Errorf("must be none, or some of apikey, jwt and proxy, not %q", name)
				}
				if !slices.Contains(found, mode) {
					found = append(found, mode)
				}
			}
			if len(found) == 0 || len(found) > 1 && slices.Contains(found, AuthNone) {
				return fmt.Errorf("must be none alone, or some of apikey, jwt and proxy, not %q", c.texts)
			}
			c.Auth.Modes = found
			return nil
		},
		func(c *Config) string { return join(c.Auth.Modes) },
	}
}

// join shows a list.
func join[T ~string](values []T) string {
	shown := make([]string, len(values))
	for i, value := range values {
		shown[i] = string(value)
	}
	return strings.Join(shown, ",")
}

func parseScopes(names []string) ([]taskbridge.Scope, error) {
	var found []taskbridge.Scope
	for _, name := range names {
		scope := taskbridge.Scope(name)
		if !slices.Contains([]taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite, taskbridge.ScopeAdmin, taskbridge.ScopeWorker}, scope) {
			return nil, fmt.Errorf("must have scopes of tasks:read, tasks:write, admin and worker, not %q", name)
		}
		found = append(found, scope)
	}
	return found, nil
}

func scopes(field func(*Config) *[]taskbridge.Scope) parser {
	names := list(func(c *Config) *[]string { return &c.texts })
	return parser{
		func(c *Config, raw any) (err error) {
			if err = names.set(c, raw); err == nil {
				*field(c), err = parseScopes(c.texts)
			}
			return err
		},
		func(c *Config) string { return join(*field(c)) },
	}
}

// scopeMap reads VALUE=SCOPE SCOPE, of which there may be several.
func scopeMap(field func(*Config) *map[string][]taskbridge.Scope) parser {
	return pairs(func(c *Config, values map[string]string) error {
		m := make(map[string][]taskbridge.Scope, len(values))
		for value, names := range values {
			granted, err := parseScopes(strings.Fields(names))
			if err != nil {
				return fmt.Errorf("of %q %w", value, err)
			}
			m[value] = granted
		}
		*field(c) = m
		return nil
	}, func(c *Config) map[string]string {
		values := make(map[string]string, len(*field(c)))
		for value, granted := range *field(c) {
			values[value] = strings.ReplaceAll(join(granted), ",", " ")
		}
		return values
	})
}

func prefixes(field func(*Config) *[]netip.Prefix) parser {
	names := list(func(c *Config) *[]string { return &c.texts })
	return parser{
		func(c *Config, raw any) error {
			if err := names.set(c, raw); err != nil {
				return err
			}
			var found []netip.Prefix
			for _, name := range c.texts {
				prefix, err := netip.ParsePrefix(name)
				if err != nil {
					address, err := netip.ParseAddr(name)
					if err != nil || address.Zone() != "" {
						return fmt.Errorf("must have addresses (10.1.2.3) or prefixes (10.1.0.0/16), not %q", name)
					}
					prefix = netip.PrefixFrom(address, address.BitLen())
				}
				found = append(found, prefix)
			}
			*field(c) = found
			return nil
		},
		func(c *Config) string {
			var shown []string
			for _, prefix := range *field(c) {
				shown = append(shown, prefix.String())
			}
			return strings.Join(shown, ",")
		},
	}
}

// secrets is a list that nothing shows, errors neither.
func secrets(field func(*Config) *[][]byte) parser {
	return parser{
		func(c *Config, raw any) error {
			var found [][]byte
			switch raw := raw.(type) {
			case string:
				for secret := range strings.SplitSeq(raw, ",") {
					if secret = strings.TrimSpace(secret); secret != "" {
						found = append(found, []byte(secret))
					}
				}
			case []any:
				for _, element := range raw {
					secret, ok := element.(string)
					if !ok {
						return errors.New("must be a list of texts (quote them)")
					}
					found = append(found, []byte(secret))
				}
			default:
				return errors.New("must be a list of texts (quote them)")
			}
			*field(c) = found
			return nil
		},
		func(*Config) string { return "" },
	}
}
