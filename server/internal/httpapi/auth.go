package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/auth"
)

// Authenticator says who makes a request; see package auth.
type Authenticator = auth.Authenticator

// AuthenticatorFunc is a function as an [Authenticator].
type AuthenticatorFunc = auth.AuthenticatorFunc

// ErrUnauthenticated: the request has no credentials, or bad ones.
var ErrUnauthenticated = auth.ErrUnauthenticated

// Anyone takes every request for the given principal's. It is for servers that
// nobody but the machine's own users can reach.
func Anyone(principal taskbridge.Principal) Authenticator { return auth.Anyone(principal) }

const (
	pathTasks  = "/api/v1/tasks"
	pathSocket = pathTasks + "/ws"
	pathStream = "/events/stream" // behind a task's path
)

// IsStream reports whether the request is for one of the routes that deliver
// live: those on which alone a token may stand in the address.
func IsStream(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	if r.URL.Path == pathSocket {
		return true
	}
	id, ok := strings.CutPrefix(r.URL.Path, pathTasks+"/")
	if !ok {
		return false
	}
	id, ok = strings.CutSuffix(id, pathStream)
	return ok && id != "" && !strings.Contains(id, "/")
}

// authenticationProblem says how an authenticator's error is answered. What
// keeps it from telling is for the log alone.
func authenticationProblem(err error) error {
	if errors.Is(err, ErrUnauthenticated) {
		return &problem{
			status: http.StatusUnauthorized, code: codeAuthentication, message: err.Error(),
			challenge: auth.Challenge(err),
		}
	}
	return fmt.Errorf("%w: %w", errCannotTell, err)
}

var errCannotTell = unavailable("credentials cannot be checked at the moment")
