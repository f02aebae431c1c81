package auth

import (
	"errors"
	"fmt"
	"net/http"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Authenticator says who makes a request. It is safe for concurrent use, does
// not read the request's body, and may be asked again with the same request
// while that is being answered. It returns soon after the request's context has
// ended.
//
// An error that matches [ErrUnauthenticated] is answered 401 with [Challenge],
// any other 503: it cannot be told now.
type Authenticator interface {
	Authenticate(r *http.Request) (taskbridge.Principal, error)
}

// AuthenticatorFunc is a function as an [Authenticator].
type AuthenticatorFunc func(r *http.Request) (taskbridge.Principal, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(r *http.Request) (taskbridge.Principal, error) { return f(r) }

// Anyone takes every request for the given principal's. It is for servers that
// nobody but the machine's own users can reach.
func Anyone(principal taskbridge.Principal) Authenticator {
	return AuthenticatorFunc(func(*http.Request) (taskbridge.Principal, error) { return principal, nil })
}

// Local is the principal of a server without access control: it reads and
// writes what is then everybody's, and may work on it.
func Local() taskbridge.Principal {
	return taskbridge.Principal{
		Subject: "local",
		Scopes:  []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite, taskbridge.ScopeWorker},
	}
}

var (
	// ErrUnauthenticated: the request has no credentials, or bad ones. Errors
	// that match it say which, in words that may be shown to the client.
	ErrUnauthenticated = errors.New("no credentials, or bad ones")
	// ErrUnavailable: whether the credentials are good cannot be told now; the
	// client may try again. What went wrong is for the log, not for the client.
	ErrUnavailable = errors.New("credentials cannot be checked at the moment")
)

// errNone: the request presents nothing.
var errNone = &refusal{PresentedNothing, "the request has no credentials"}

// Presented is what a request that was refused has shown.
type Presented string

// What there is to show.
const (
	PresentedNothing  Presented = "nothing"
	PresentedAPIKey   Presented = "API key"
	PresentedJWT      Presented = "JWT" // or any text that is no API key
	PresentedIdentity Presented = "identity headers"
	PresentedUnclear  Presented = "unclear" // more than one credential, or none by its form
)

// PresentedOf returns what the request had shown that an [Authenticator] refused
// with this error, for whoever counts refusals.
func PresentedOf(err error) Presented {
	var refused *refusal
	if !errors.As(err, &refused) {
		return PresentedUnclear
	}
	return refused.presented
}

// refusal is an [ErrUnauthenticated] with its reason. Reasons are fixed texts:
// none quotes the request.
type refusal struct {
	presented Presented
	reason    string
}

func (e *refusal) Error() string   { return e.reason }
func (*refusal) Is(err error) bool { return err == ErrUnauthenticated }

func refuse(presented Presented, reason string) error { return &refusal{presented, reason} }

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnavailable}, args...)...)
}

// Challenge returns the WWW-Authenticate header of the 401 that answers the
// error, as RFC 6750 has it: one that follows no credentials says only what is
// asked for, one that follows bad ones says why they are.
func Challenge(err error) string {
	const realm = `Bearer realm="taskbridge"`
	var refused *refusal
	if !errors.As(err, &refused) || refused == errNone {
		return realm
	}
	return realm + `, error="invalid_token", error_description="` + refused.reason + `"`
}
