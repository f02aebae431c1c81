package client

import (
	"context"
	"errors"
	"fmt"
)

// credentials holds the bearer credential in use.
type credentials struct {
	source func(context.Context) (string, error) // nil: the token never changes
	lock   chan struct{}                         // holds one element while somebody uses what follows
	token  string
	known  bool
}

func newCredentials(token string, source func(context.Context) (string, error)) (*credentials, error) {
	switch {
	case source != nil && token != "":
		return nil, errors.New("client: either Token or TokenSource, not both")
	case !sendable(token):
		return nil, errors.New("client: Token has characters that a header cannot have")
	}
	return &credentials{source: source, lock: make(chan struct{}, 1), token: token, known: source == nil}, nil
}

// sourceError is final: see [Options.TokenSource].
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "ask for a token: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// get returns the credential to use, "" for none.
func (k *credentials) get(ctx context.Context) (string, error) {
	return k.use(ctx, func() bool { return !k.known })
}

// renew returns the one to use after the server has refused one. Whoever comes
// second takes what the first was given.
func (k *credentials) renew(ctx context.Context, refused string) (string, error) {
	return k.use(ctx, func() bool { return !k.known || k.token == refused })
}

func (k *credentials) use(ctx context.Context, stale func() bool) (string, error) {
	select {
	case k.lock <- struct{}{}:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { <-k.lock }()
	if k.source == nil || !stale() {
		return k.token, nil
	}
	token, err := k.source(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", fmt.Errorf("ask for a token: %w", context.Cause(ctx))
	case err != nil:
		return "", &sourceError{err}
	case !sendable(token):
		return "", &sourceError{errors.New("it has characters that a header cannot have")}
	}
	k.token, k.known = token, true
	return token, nil
}

// sendable reports whether net/http takes it, whose own error might quote it.
func sendable(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return false
		}
	}
	return true
}
