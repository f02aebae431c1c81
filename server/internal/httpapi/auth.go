package httpapi

import (
	"errors"
	"net/http"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Authenticator says who makes a request. It is safe for concurrent use and
// does not read the request's body.
//
// An error that matches [ErrUnauthenticated] is answered 401, any other 503.
type Authenticator interface {
	Authenticate(r *http.Request) (taskbridge.Principal, error)
}

// ErrUnauthenticated: the request has no credentials, or bad ones.
var ErrUnauthenticated = errors.New("no credentials, or bad ones")

// AuthenticatorFunc is a function as an [Authenticator].
type AuthenticatorFunc func(r *http.Request) (taskbridge.Principal, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(r *http.Request) (taskbridge.Principal, error) { return f(r) }

// Anyone takes every request for the given principal's. It is for servers that
// nobody but the machine's own users can reach.
func Anyone(principal taskbridge.Principal) Authenticator {
	return AuthenticatorFunc(func(*http.Request) (taskbridge.Principal, error) { return principal, nil })
}

func authenticationProblem(err error) error {
	if errors.Is(err, ErrUnauthenticated) {
		return &problem{status: http.StatusUnauthorized, code: codeAuthentication, message: err.Error()}
	}
	return err
}
