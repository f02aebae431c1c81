package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// Lifecycle records over the worker API of a server. Safe for concurrent use.
// It has no goroutines of its own: its runs have, until they are over.
type Lifecycle struct {
	opts Options
}

var _ taskbridge.TaskLifecycle = (*Lifecycle)(nil)

// NewLifecycle makes a lifecycle. It sends nothing yet.
func NewLifecycle(opts Options) (*Lifecycle, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Lifecycle{opts}, nil
}

// CloseIdleConnections closes the connections that no request uses now.
func (l *Lifecycle) CloseIdleConnections() { l.opts.HTTPClient.CloseIdleConnections() }

// Start begins or joins an attempt; see [taskbridge.TaskLifecycle]. It tries
// again what may pass until ctx ends. A claim with an Instance is not runnable:
// the work of a server's own process is not remote. The run's Task has what the
// server tells a worker, which leaves out what only services need. Under a claim
// with an epoch it is a [taskbridge.NumberedRun], which buffers nothing.
//
// A start whose answer was lost is made again and joins what the first one
// began; unless another claim has come in between, which is [taskbridge.ErrStaleAttempt].
func (l *Lifecycle) Start(ctx context.Context, taskID string, claim taskbridge.Claim) (taskbridge.Run, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkClaim(claim); err != nil {
		return nil, err
	}
	if claim.Instance != "" {
		return nil, fmt.Errorf("%w: it belongs to the instance %q, and this worker is remote", taskbridge.ErrNotRunnable, claim.Instance)
	}
	if !taskbridge.ValidTaskID(taskID) {
		return nil, taskbridge.ErrTaskNotFound
	}
	answer, err := l.start(ctx, taskID, claim, "", isPassing)
	if err != nil {
		return nil, err
	}
	run := newRun(l, claim, answer)
	run.begin()
	if claim.Epoch > 0 {
		return &numberedRun{run: run, turn: make(chan struct{}, 1)}, nil
	}
	return run, nil
}

// checkClaim keeps what the wire would change from becoming another claim. The
// rest is the server's to check.
func checkClaim(claim taskbridge.Claim) error {
	for field, values := range map[string][]string{"claim": {claim.ID}, "producer": {claim.Producer}, "replaces": claim.Replaces} {
		for _, value := range values {
			if !utf8.ValidString(value) {
				return &taskbridge.ArgumentError{Field: field, Reason: "must be UTF-8"}
			}
		}
	}
	if claim.ID == "" {
		return &taskbridge.ArgumentError{Field: "claim", Reason: "must not be empty"}
	}
	if claim.Epoch < 0 { // the wire has no word for it
		return &taskbridge.ArgumentError{Field: "epoch", Reason: "must not be negative"}
	}
	return nil
}

// start makes the request for a start, with the attempt token that has expired
// if there is one.
func (l *Lifecycle) start(ctx context.Context, taskID string, claim taskbridge.Claim, attemptToken string, again func(error) bool) (*startAnswer, error) {
	content := workerapi.StartRequest{Claim: claim.ID, Producer: claim.Producer, Replaces: claim.Replaces, AttemptToken: attemptToken}
	if claim.Epoch > 0 {
		content.Epoch = &claim.Epoch
	}
	body, err := encode(content)
	if err != nil {
		return nil, err
	}
	req := request{method: http.MethodPost, route: "/start", taskID: taskID, body: body, most: maxStartAnswer}
	var answer *startAnswer
	err = l.persist(ctx, "start of task "+taskID, again, func() error {
		token, err := l.credential(ctx, claim)
		if err != nil {
			return err
		}
		answer = new(startAnswer)
		return l.try(ctx, req, token, answer)
	})
	return answer, err
}

// credential is what a start of the claim is authorised by.
func (l *Lifecycle) credential(ctx context.Context, claim taskbridge.Claim) (string, error) {
	token := claim.Token
	if token == "" && l.opts.Credential != nil {
		var err error
		if token, err = l.opts.Credential(ctx); err != nil {
			return "", &credentialError{err}
		}
	}
	// A header cannot have it, which would look like a broken connection. A line's
	// end from a file is the usual way to come by one.
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", &credentialError{errors.New("it has characters that no token has")}
	}
	return token, nil
}

// credentialError: there is no credential that can be sent. A start fails
// with it; a run that goes on asks again.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return "get the credential: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// Notice appends a message without a claim; see [taskbridge.TaskLifecycle]. It
// is tried again only where the try before certainly came to nothing.
func (l *Lifecycle) Notice(ctx context.Context, taskID string, message taskbridge.Message) error {
	if err := l.check(ctx, taskID, taskbridge.Report{Message: &message}); err != nil {
		return err
	}
	return l.command(ctx, taskID, "/notices", workerapi.NoticeRequest{Message: message.Text, Level: string(message.Level)}, isUntouched)
}

// Settle ends a task from outside; see [taskbridge.TaskLifecycle]. It tries again
// what may pass until ctx ends; if the first try did take effect and its answer
// was lost, it returns [taskbridge.ErrTaskFinished].
func (l *Lifecycle) Settle(ctx context.Context, taskID string, outcome taskbridge.Outcome) error {
	if err := l.check(ctx, taskID, taskbridge.Report{Outcome: &outcome}); err != nil {
		return err
	}
	return l.command(ctx, taskID, "/settle", workerapi.SettleRequest{Outcome: l.end(outcome)}, isPassing)
}

// check is what precedes each call that does not wait for a run.
func (l *Lifecycle) check(ctx context.Context, taskID string, report taskbridge.Report) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := taskbridge.CheckReport(report, l.opts.Limits); err != nil {
		return err
	}
	if !taskbridge.ValidTaskID(taskID) {
		return taskbridge.ErrTaskNotFound
	}
	return nil
}

// command makes a request that is authorised by the credential alone.
func (l *Lifecycle) command(ctx context.Context, taskID, route string, content any, again func(error) bool) error {
	body, err := encode(content)
	if err != nil {
		return err
	}
	req := request{method: http.MethodPost, route: route, taskID: taskID, body: body, most: maxAnswer}
	return l.persist(ctx, route[1:]+" of task "+taskID, again, func() error {
		token, err := l.credential(ctx, taskbridge.Claim{})
		if err != nil {
			return err
		}
		return l.try(ctx, req, token, new(struct{}))
	})
}
