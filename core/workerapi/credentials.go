package workerapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// credentialKind says what a request is authorised by.
type credentialKind int

const (
	submissionToken credentialKind = iota + 1
	attemptToken
	hostScope // the host's own credentials, with the scope worker
)

// credential is what a request brings, verified.
type credential struct {
	kind   credentialKind
	taskID string // empty for hostScope: any task
	grant  grant  // of an attempt token
}

// authorise returns the request's credential if it is one of those that open the
// route, and reaches the task.
func (h *handler) authorise(r *http.Request, taskID string, opens []credentialKind) (credential, error) {
	c, err := h.credential(r)
	switch {
	case err != nil:
		return c, err
	case !slices.Contains(opens, c.kind), c.kind != hostScope && c.taskID != taskID:
		return c, forbidden()
	}
	return c, nil
}

// credential verifies what the request brings. A token that is bad is refused,
// whatever else the request has.
func (h *handler) credential(r *http.Request) (credential, error) {
	token := bearer(r)
	if !isToken(token) {
		return h.hostCredential(r)
	}
	if taskID, ok := h.opts.Signer.openSubmission(token); ok {
		return credential{kind: submissionToken, taskID: taskID}, nil
	}
	g, ok := h.opts.Signer.openAttempt(token)
	if !ok || h.opts.Signer.expired(g) {
		return credential{}, unauthenticated()
	}
	return credential{kind: attemptToken, taskID: g.TaskID, grant: g}, nil
}

func (h *handler) hostCredential(r *http.Request) (credential, error) {
	if h.opts.Authorize == nil {
		return credential{}, unauthenticated()
	}
	ok, err := h.opts.Authorize(r)
	switch {
	case errors.Is(err, taskbridge.ErrForbidden):
		return credential{}, forbidden()
	case err != nil:
		return credential{}, fmt.Errorf("check credentials: %w", err)
	case !ok:
		return credential{}, unauthenticated()
	}
	return credential{kind: hostScope}, nil
}

// bearer returns the request's bearer token, "" where it has none.
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimLeft(token, " ")
}
