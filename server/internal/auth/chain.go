package auth

import (
	"errors"
	"net/http"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options says which ways of authentication [New] offers; at least one.
type Options struct {
	APIKeys  *APIKeys
	JWT      *JWT
	Identity *Identity

	// WebSocketToken lets a handshake carry the token as the subprotocol
	// "bearer.TOKEN" beside [WebSocketProtocol].
	WebSocketToken bool
	// QueryToken reports whether a request may carry its token in the query
	// parameter access_token. nil: none may. It should be true for the routes
	// of streams alone; addresses are written to logs that are not ours.
	QueryToken func(r *http.Request) bool
}

// Chain is several ways of authentication as one [Authenticator].
type Chain struct{ opts Options }

// New makes the chain. It owns what it is given: Close closes all of it.
func New(opts Options) (*Chain, error) {
	if opts.APIKeys == nil && opts.JWT == nil && opts.Identity == nil {
		return nil, errors.New("auth: one of Options.APIKeys, JWT and Identity must be given")
	}
	return &Chain{opts}, nil
}

// Authenticate says who makes the request; see the package's comment.
func (c *Chain) Authenticate(r *http.Request) (taskbridge.Principal, error) {
	principal, err := c.authenticate(r)
	if err != nil {
		return taskbridge.Principal{}, err
	}
	return principal, nil
}

func (c *Chain) authenticate(r *http.Request) (principal taskbridge.Principal, err error) {
	identified := false
	if c.opts.Identity != nil {
		if principal, identified, err = c.opts.Identity.read(r); err != nil {
			return principal, err
		}
	}
	presented, err := c.find(r)
	switch {
	case err != nil:
		return principal, err
	case identified && presented != nil:
		return principal, errTwoCredentials
	case identified:
		return principal, nil
	case presented == nil:
		return principal, errNone
	case presented.key || strings.HasPrefix(presented.token, keyPrefix):
		if c.opts.APIKeys == nil {
			return principal, refuse(PresentedAPIKey, "API keys are not accepted here")
		}
		return c.opts.APIKeys.Verify(presented.token)
	case c.opts.JWT == nil:
		return principal, refuse(PresentedJWT, "only API keys are accepted here")
	}
	return c.opts.JWT.Verify(r.Context(), presented.token)
}

// find leaves tokens alone where nothing could check them: they may be meant
// for the proxy that identifies the user.
func (c *Chain) find(r *http.Request) (*credential, error) {
	if c.opts.APIKeys == nil && c.opts.JWT == nil {
		return nil, nil
	}
	return findCredential(r, places{
		apiKeyHeader: c.opts.APIKeys != nil,
		protocols:    c.opts.WebSocketToken,
		query:        c.opts.QueryToken != nil && c.opts.QueryToken(r),
	})
}

// Close ends what runs behind the chain and waits for it. A request that is
// being authenticated meanwhile gets an answer of some kind.
func (c *Chain) Close() error {
	var errs []error
	if c.opts.APIKeys != nil {
		errs = append(errs, c.opts.APIKeys.Close())
	}
	if c.opts.JWT != nil {
		errs = append(errs, c.opts.JWT.Close())
	}
	return errors.Join(errs...)
}
