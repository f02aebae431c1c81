package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// IdentityOptions configures [NewIdentity]. TrustedProxies or Secrets, or both,
// are required; where both are given, both must hold.
//
// A proxy must overwrite or remove all of these headers in what it passes on:
// with TrustedProxies alone it is the only guard.
type IdentityOptions struct {
	// SubjectHeader names the header with the subject.
	// Default X-Taskbridge-Subject.
	SubjectHeader string
	// ScopesHeader names the header with the scopes, separated by spaces or
	// commas; names that are no scopes of ours are ignored.
	// Default X-Taskbridge-Scopes.
	ScopesHeader string
	// DefaultScopes are those of requests without a scopes header. Default none.
	DefaultScopes []taskbridge.Scope

	// TrustedProxies are the addresses from which the headers are accepted, as
	// the TCP connection has them; no header, X-Forwarded-For least of all, has
	// any say in that.
	TrustedProxies []netip.Prefix

	// Secrets, of 32 bytes or more, sign the headers; see [SignIdentity]. One of
	// them must have made the signature, so that a proxy's secret can be
	// replaced: add the new one here, then switch the proxy, then remove the old.
	Secrets [][]byte
	// TimestampHeader and SignatureHeader name the headers of the signature.
	// Default X-Taskbridge-Timestamp and X-Taskbridge-Signature.
	TimestampHeader, SignatureHeader string
	// MaxAge is for how long after its time a signature is good. It is the life
	// of the identity as a credential: who has recorded one can use it for so
	// long, and a stream ends with the signature of the request that opened it,
	// and is resumed with a new one. Default 5 min.
	MaxAge time.Duration

	Clock taskbridge.Clock // nil: the system's
}

// Identity reads who makes a request from headers that a proxy has set. A
// request that carries any of them and is not from the proxy is refused: to
// ignore them would let a hole in front of the server go unnoticed. Safe for
// concurrent use.
type Identity struct{ opts IdentityOptions }

// clockSkew is how far ahead of ours a proxy's clock may be.
const clockSkew = 30 * time.Second

// NewIdentity checks the options.
func NewIdentity(opts IdentityOptions) (*Identity, error) {
	opts.Clock, _ = orDefaults(opts.Clock, nil)
	if opts.MaxAge == 0 {
		opts.MaxAge = 5 * time.Minute
	}
	names := []struct {
		value       *string
		option, def string
	}{
		{&opts.SubjectHeader, "SubjectHeader", "X-Taskbridge-Subject"},
		{&opts.ScopesHeader, "ScopesHeader", "X-Taskbridge-Scopes"},
		{&opts.TimestampHeader, "TimestampHeader", "X-Taskbridge-Timestamp"},
		{&opts.SignatureHeader, "SignatureHeader", "X-Taskbridge-Signature"},
	}
	seen := map[string]bool{}
	for _, name := range names {
		if *name.value == "" {
			*name.value = name.def
		}
		canonical := http.CanonicalHeaderKey(*name.value)
		switch {
		case !validHeaderName(canonical):
			return nil, fmt.Errorf("auth: IdentityOptions.%s is no name of a header: %q", name.option, *name.value)
		case slices.Contains(reservedHeaders, canonical):
			return nil, fmt.Errorf("auth: IdentityOptions.%s must not be %s, which has its own meaning", name.option, canonical)
		case seen[canonical]:
			return nil, fmt.Errorf("auth: IdentityOptions.%s has the name of another one", name.option)
		}
		seen[canonical] = true
		*name.value = canonical
	}
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("auth: IdentityOptions.%w", err)
	}
	opts.TrustedProxies = slices.Clone(opts.TrustedProxies)
	return &Identity{opts}, nil
}

// reservedHeaders would never arrive, or mean something else.
var reservedHeaders = []string{
	"Authorization", headerAPIKey, "Connection", "Content-Length", "Content-Type", "Cookie", "Host", "Origin",
	headerProtocols, "Transfer-Encoding", "Upgrade", "X-Forwarded-For",
}

func (o IdentityOptions) check() error {
	if len(o.TrustedProxies) == 0 && len(o.Secrets) == 0 {
		return errors.New("TrustedProxies or Secrets must be given: without them anybody could name himself")
	}
	for _, prefix := range o.TrustedProxies {
		switch {
		case !prefix.IsValid():
			return errors.New("TrustedProxies has an invalid prefix")
		case prefix.Addr().Is4In6():
			return fmt.Errorf("TrustedProxies: write %s in its IPv4 form", prefix)
		case prefix.Addr().Zone() != "":
			return fmt.Errorf("TrustedProxies: %s must not have a zone", prefix)
		case prefix.Bits() == 0 && len(o.Secrets) == 0:
			return fmt.Errorf("TrustedProxies: %s would trust every address", prefix)
		}
	}
	for _, secret := range o.Secrets {
		if len(secret) < minSecret {
			return fmt.Errorf("Secrets must have %d bytes or more each", minSecret)
		}
	}
	if o.MaxAge < time.Second || o.MaxAge > 24*time.Hour {
		return errors.New("MaxAge must be from 1 second to 24 hours")
	}
	if err := checkScopes(o.DefaultScopes); err != nil {
		return fmt.Errorf("DefaultScopes %w", err)
	}
	return nil
}

func validHeaderName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return name != ""
}

var (
	errIdentityPeer    = refuse(PresentedIdentity, "identity headers are not accepted from this address")
	errIdentityTwice   = refuse(PresentedIdentity, "an identity header is there more than once")
	errIdentitySubject = refuse(PresentedIdentity, "the identity header has no usable subject")
	errIdentityScopes  = refuse(PresentedIdentity, "the scopes header is malformed")
)

// read returns the principal that the headers name; found is false where the
// request has none of them.
func (i *Identity) read(r *http.Request) (principal taskbridge.Principal, found bool, err error) {
	subject, hasSubject, err := single(r, i.opts.SubjectHeader)
	scopes, hasScopes, errScopes := single(r, i.opts.ScopesHeader)
	timestamp, hasTimestamp, errTimestamp := single(r, i.opts.TimestampHeader)
	signature, hasSignature, errSignature := single(r, i.opts.SignatureHeader)
	switch {
	case !hasSubject && !hasScopes && !hasTimestamp && !hasSignature:
		return principal, false, nil
	case !i.trustedPeer(r.RemoteAddr):
		return principal, false, errIdentityPeer
	case err != nil || errScopes != nil || errTimestamp != nil || errSignature != nil:
		return principal, false, errIdentityTwice
	case checkSubject(subject) != nil:
		return principal, false, errIdentitySubject
	case !printable(scopes):
		return principal, false, errIdentityScopes
	}
	if len(i.opts.Secrets) > 0 {
		if err := i.checkSignature(subject, scopes, hasScopes, timestamp, signature); err != nil {
			return principal, false, err
		}
	}
	principal.Subject = subject
	if hasScopes {
		principal.Scopes = identityScopes(scopes)
	} else {
		principal.Scopes = orderScopes(i.opts.DefaultScopes)
	}
	return principal, true, nil
}

// single returns a header that must not be there twice.
func single(r *http.Request, name string) (value string, there bool, err error) {
	values := r.Header[name]
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	}
	return "", true, errIdentityTwice
}

// trustedPeer looks at the connection's own address.
func (i *Identity) trustedPeer(remote string) bool {
	if len(i.opts.TrustedProxies) == 0 {
		return true // the signature decides
	}
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	address := peer.Addr().Unmap().WithZone("")
	for _, prefix := range i.opts.TrustedProxies {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

func identityScopes(header string) []taskbridge.Scope {
	var scopes []taskbridge.Scope
	for _, name := range strings.FieldsFunc(header, func(c rune) bool { return c == ' ' || c == ',' }) {
		scopes = append(scopes, taskbridge.Scope(name))
	}
	return orderScopes(scopes)
}

// printable reports whether a text is ASCII without control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
