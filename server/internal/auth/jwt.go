package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	taskbridge "github.com/taskbridge/taskbridge/core"
)

// JWTOptions configures [OpenJWT]. Issuer, Audiences and one of KeysURL and
// KeysFile are required.
type JWTOptions struct {
	// Issuer is what the claim iss must be, exactly.
	Issuer string
	// Audiences are the names of this server of which the claim aud must have
	// one. Without that, a token that the provider made for any other of its
	// services would be good here.
	Audiences []string
	// Algorithms are those that tokens may be signed with, of RS256, PS256,
	// ES256 and EdDSA. Default: all four. There are no others: none, and
	// secrets that both sides share, cannot be turned on.
	Algorithms []string
	// Leeway is how far clocks may be apart: a token is good until exp + Leeway
	// and from nbf - Leeway. Default 30 s, negative: none.
	Leeway time.Duration
	// SubjectClaim is the claim that names the principal, a text. Default sub.
	// It must be one that users cannot choose.
	SubjectClaim string

	// ScopeClaim is the claim that has the scopes, a text with spaces or a list
	// of texts. One inside another object is named with dots, as in
	// realm_access.roles. Default: scope, and where that is absent scp.
	ScopeClaim string
	// ScopeMap says which scopes a value of the claim grants. nil: those of the
	// same name. Values that it does not have grant nothing.
	ScopeMap map[string][]taskbridge.Scope
	// DefaultScopes are those of tokens that do not have the claim at all. A
	// token that has it is never given more than it says.
	DefaultScopes []taskbridge.Scope

	// KeysURL is where the provider publishes its keys, a JSON Web Key Set;
	// https, unless the host is loopback. They need not be there when the server
	// starts. Redirects are not followed.
	KeysURL string
	// RefreshInterval is how often they are fetched: tokens of a key that is
	// taken off the set are refused within this and FetchTimeout. Default 5 min.
	// A token with an unknown key has them fetched at once, but not within 5 s
	// of the last time.
	RefreshInterval time.Duration
	// FetchTimeout bounds a fetch. Default 5 s.
	FetchTimeout time.Duration

	// KeysFile has the key set instead. It must be good when the server starts.
	KeysFile string
	// ReloadInterval is how often it is read, as with [APIKeyOptions].
	ReloadInterval time.Duration

	// MaxStale is for how long the keys that were fetched, or read, last stay
	// valid while they cannot be had; then no token is good. Default 1 h from a
	// URL, 5 min from a file.
	MaxStale time.Duration

	Clock  taskbridge.Clock // nil: the system's
	Logger *slog.Logger     // nil: discarded
}

// JWT checks the tokens of one issuer. Safe for concurrent use.
type JWT struct {
	opts       JWTOptions
	algorithms []jose.SignatureAlgorithm
	keys       keySource
}

var supportedAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// OpenJWT begins to fetch, or to watch, the keys and does so until Close.
func OpenJWT(opts JWTOptions) (*JWT, error) {
	opts.Clock, opts.Logger = orDefaults(opts.Clock, opts.Logger)
	if opts.Leeway == 0 {
		opts.Leeway = 30 * time.Second
	}
	opts.Leeway = max(opts.Leeway, 0)
	if opts.SubjectClaim == "" {
		opts.SubjectClaim = "sub"
	}
	j := &JWT{opts: opts}
	for _, name := range opts.Algorithms {
		if !slices.Contains(supportedAlgorithms, jose.SignatureAlgorithm(name)) {
			return nil, fmt.Errorf("auth: JWTOptions.Algorithms has %q, which is none of %q", name, supportedAlgorithms)
		}
		j.algorithms = append(j.algorithms, jose.SignatureAlgorithm(name))
	}
	if len(j.algorithms) == 0 {
		j.algorithms = supportedAlgorithms
	}
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("auth: JWTOptions.%w", err)
	}
	var err error
	if j.keys, err = opts.openKeys(); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return j, nil
}

// check begins its errors with the option's name.
func (o JWTOptions) check() error {
	switch {
	case o.Issuer == "":
		return errors.New("Issuer must not be empty")
	case len(o.Audiences) == 0 || slices.Contains(o.Audiences, ""):
		return errors.New("Audiences must have one or more names, none empty")
	case o.Leeway > 10*time.Minute:
		return errors.New("Leeway must be at most 10 minutes")
	case (o.KeysURL == "") == (o.KeysFile == ""):
		return errors.New("KeysURL or KeysFile must be given, and not both")
	case o.RefreshInterval < 0 || o.FetchTimeout < 0 || o.ReloadInterval < 0 || o.MaxStale < 0:
		return errors.New("RefreshInterval, FetchTimeout, ReloadInterval and MaxStale must not be negative")
	}
	if err := checkScopes(o.DefaultScopes); err != nil {
		return fmt.Errorf("DefaultScopes %w", err)
	}
	for value, scopes := range o.ScopeMap {
		if err := checkScopes(scopes); err != nil {
			return fmt.Errorf("ScopeMap of %q %w", value, err)
		}
	}
	return nil
}

func (o JWTOptions) openKeys() (keySource, error) {
	if o.KeysFile != "" {
		return openFileKeys(o.KeysFile, o.ReloadInterval, o.MaxStale, o.Clock, o.Logger)
	}
	remote := remoteOptions{
		url: o.KeysURL, refresh: o.RefreshInterval, minRefetch: minRefetch, timeout: o.FetchTimeout, stale: o.MaxStale,
		clock: o.Clock, logger: o.Logger,
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&remote.refresh, defaultRefresh}, {&remote.timeout, defaultFetchTimeout}, {&remote.stale, defaultKeysStale}} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if err := checkKeyURL(o.KeysURL); err != nil {
		return nil, fmt.Errorf("JWTOptions.KeysURL %w", err)
	}
	if remote.stale < remote.refresh {
		return nil, fmt.Errorf("JWTOptions.MaxStale (%s) must not be shorter than RefreshInterval (%s)", remote.stale, remote.refresh)
	}
	return openRemoteKeys(remote), nil
}

// Close ends what keeps the keys up to date and waits for it.
func (j *JWT) Close() error {
	j.keys.close()
	return nil
}

var (
	errJWTMalformed = refuse(PresentedJWT, "the token is malformed")
	errJWTAlgorithm = refuse(PresentedJWT, "the token is signed with an algorithm that is not allowed")
	errJWTType      = refuse(PresentedJWT, "the token is of a type that is not accepted")
	errJWTKey       = refuse(PresentedJWT, "the token is signed with an unknown key")
	errJWTSignature = refuse(PresentedJWT, "the token's signature is wrong")
)

// Verify returns whose token it is. It waits for keys within ctx and for no
// longer than a fetch may take. The error matches [ErrUnauthenticated] or
// [ErrUnavailable].
func (j *JWT) Verify(ctx context.Context, token string) (taskbridge.Principal, error) {
	var none taskbridge.Principal
	if len(token) > maxToken {
		return none, errTokenLong
	}
	signed, err := jose.ParseSignedCompact(token, j.algorithms)
	var algorithm *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &algorithm):
		return none, errJWTAlgorithm
	case err != nil || len(signed.Signatures) != 1:
		return none, errJWTMalformed
	}
	header := signed.Signatures[0].Protected
	if !acceptedType(header) {
		return none, errJWTType
	}
	var payload []byte
	verdict, err := j.keys.ask(ctx, func(set keySet) verdict {
		for _, key := range set.candidates(header.KeyID, jose.SignatureAlgorithm(header.Algorithm)) {
			if verified, err := signed.Verify(key); err == nil {
				payload = verified
				return accepted
			} else if header.KeyID != "" {
				return refused // by the very key that it names
			}
		}
		return undecided
	})
	switch {
	case err != nil:
		return none, err
	case verdict == refused:
		return none, errJWTSignature
	case verdict != accepted:
		return none, errJWTKey
	}
	return j.principal(payload)
}

// acceptedType reports whether a token is one for access, as far as it says.
// Providers sign other things with the same keys, for the same audience: a
// logout token, say (RFC 8725, section 3.11).
func acceptedType(header jose.Header) bool {
	declared, there := header.ExtraHeaders[jose.HeaderType]
	if !there {
		return true
	}
	name, ok := declared.(string)
	if !ok {
		return false
	}
	name = strings.TrimPrefix(strings.ToLower(name), "application/")
	return name == "jwt" || name == "at+jwt"
}
