package workerapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// Options configures [NewHandler]. Service, Lifecycle and Signer are required.
type Options struct {
	Service *taskbridge.WorkerService
	// Lifecycle records notices and settlements.
	Lifecycle taskbridge.TaskLifecycle
	Signer    *Signer
	// Authorize reports whether the host's own credentials on the request (an API
	// key, say) carry the scope worker. It is not asked about a request with a
	// token of a [Signer]. An error that matches [taskbridge.ErrForbidden]: the
	// caller is known and lacks the scope (403, instead of 401); any other: that
	// cannot be said now (503). nil: no request carries it.
	Authorize func(*http.Request) (bool, error)
	// Refused, if not nil, is called for each request with a token of the form of a
	// [Signer]'s that is refused: 401, or 403 where the token does not reach so far.
	Refused func(r *http.Request, token TokenKind)
	// Admit, if not nil, is asked whether a request may be handled once its
	// credentials have been checked, and before its body is read. caller names whom
	// it is counted to: the task and the kind of credential, of an attempt token the
	// attempt too. done, not nil without an error, is called when the request has
	// been handled. The error is a [*LimitError], or means that this cannot be said
	// now (503). It is called concurrently.
	Admit func(r *http.Request, caller string) (done func(), err error)
	// BodyBytes bounds the body of a request; default 4 MiB. It should be well
	// over the limit of a terminal payload: a result between the two is recorded as
	// omitted, one above is refused.
	BodyBytes int64
	// Draining, once closed, makes requests that wait answer at once; nil: never.
	Draining <-chan struct{}
	Clock    taskbridge.Clock
	Logger   *slog.Logger // nil: discarded
}

// handler serves the worker API.
type handler struct {
	opts   Options
	routes map[string]route // by the path's last segment
}

// route is one route of the API.
type route struct {
	method string
	opens  []credentialKind
	serve  func(*call) (any, error)
}

// call is one request whose credentials have been checked.
type call struct {
	w          http.ResponseWriter
	r          *http.Request
	taskID     string
	credential credential
}

// NewHandler makes the server's side of the worker API. It answers whatever path
// it is asked for; the host routes what begins with [BasePath] to it. Nothing of
// it outlives a request. Requests may wait for [MaxWait]: a write timeout of the
// host's server must be longer.
func NewHandler(opts Options) (http.Handler, error) {
	switch {
	case opts.Service == nil:
		return nil, errors.New("workerapi: Options.Service must not be nil")
	case opts.Lifecycle == nil:
		return nil, errors.New("workerapi: Options.Lifecycle must not be nil")
	case opts.Signer == nil:
		return nil, errors.New("workerapi: Options.Signer must not be nil")
	case opts.BodyBytes < 0:
		return nil, errors.New("workerapi: Options.BodyBytes must not be negative")
	}
	if opts.BodyBytes == 0 {
		opts.BodyBytes = 4 << 20
	}
	if opts.Clock == nil {
		opts.Clock = taskbridge.SystemClock{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{opts: opts}
	h.routes = map[string]route{
		"start":   {http.MethodPost, []credentialKind{submissionToken, hostScope}, h.start},
		"reports": {http.MethodPost, []credentialKind{attemptToken}, h.reports},
		"attempt": {http.MethodGet, []credentialKind{attemptToken}, h.attempt},
		"input":   {http.MethodGet, []credentialKind{attemptToken}, h.input},
		"notices": {http.MethodPost, []credentialKind{hostScope}, h.notice},
		"settle":  {http.MethodPost, []credentialKind{hostScope}, h.settle},
	}
	return h, nil
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	taskID, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, BasePath), "/")
	route, ok := h.routes[name]
	if !ok || !strings.HasPrefix(r.URL.Path, BasePath) {
		h.fail(w, r, "", &problem{status: http.StatusNotFound, code: codeNotFound, message: "there is no such route"})
		return
	}
	if r.Method != route.method {
		w.Header().Set("Allow", route.method)
		h.fail(w, r, "", &problem{
			status: http.StatusMethodNotAllowed, code: codeMethodNotAllowed, message: "the route takes " + route.method + " alone",
		})
		return
	}
	answer, err := h.serve(&call{w: w, r: r, taskID: taskID}, route)
	if err != nil {
		h.fail(w, r, taskID, err)
		return
	}
	h.write(w, http.StatusOK, answer)
}

func (h *handler) serve(c *call, route route) (any, error) {
	var err error
	// Nothing is read or looked up before this.
	if c.credential, err = h.authorise(c.r, c.taskID, route.opens); err != nil {
		h.refused(c.r, bearer(c.r), err)
		return nil, err
	}
	if !taskbridge.ValidTaskID(c.taskID) {
		return nil, taskbridge.ErrTaskNotFound
	}
	done, err := h.admit(c)
	if err != nil {
		return nil, err
	}
	defer done()
	return route.serve(c)
}

func (h *handler) start(c *call) (any, error) {
	var request StartRequest
	if err := h.decode(c, startNames, &request); err != nil {
		return nil, err
	}
	var row taskbridge.Task
	var g grant
	var err error
	if request.AttemptToken != "" {
		if g, err = h.earlier(c.taskID, request); err != nil {
			h.refused(c.r, request.AttemptToken, err)
			return nil, err
		}
		row, err = h.opts.Service.Resume(c.r.Context(), g.AttemptRef, request.Claim)
	} else {
		g.claim = hashClaim(request.Claim)
		claim := taskbridge.Claim{ID: request.Claim, Producer: request.Producer, Replaces: request.Replaces}
		if request.Epoch != nil {
			if claim.Epoch = *request.Epoch; claim.Epoch == 0 { // which is none to core
				claim.Epoch = -1
			}
		}
		row, g.AttemptRef, err = h.opts.Service.Begin(c.r.Context(), c.taskID, claim)
	}
	if err != nil {
		return nil, err
	}
	return StartResponse{Task: taskOf(row), AttemptResponse: h.attemptOf(row, g)}, nil
}

// earlier returns the start that an attempt token in a request to start again
// names. A token that does not fit is never passed over: a new start would have
// the worker's reports recorded twice.
func (h *handler) earlier(taskID string, request StartRequest) (grant, error) {
	g, ok := h.opts.Signer.openAttempt(request.AttemptToken)
	producer := request.Producer
	if producer == "" {
		producer = defaultProducer
	}
	switch {
	case !ok:
		return g, unauthenticated()
	case g.TaskID != taskID:
		return g, forbidden()
	case g.claim != hashClaim(request.Claim) || g.Producer.Name != producer,
		g.Numbered != (request.Epoch != nil), g.Numbered && g.Producer.Epoch != *request.Epoch:
		return g, &taskbridge.ArgumentError{Field: "attemptToken", Reason: "is not of this claim, producer and epoch"}
	}
	return g, nil
}

// defaultProducer stands for none, as core has it.
const defaultProducer = "worker"

func (h *handler) reports(c *call) (any, error) {
	reports, err := h.decodeReports(c)
	if err != nil {
		return nil, err
	}
	row, reported, err := h.opts.Service.Report(c.r.Context(), c.credential.grant.AttemptRef, reports)
	if errors.Is(err, taskbridge.ErrOrdinalReused) {
		p := problemOf(err)
		p.details["sequence"] = reported.Sequence
		return nil, p
	}
	if err != nil {
		return nil, err
	}
	answer := h.attemptOf(row, c.credential.grant)
	answer.Sequence = reported.Sequence
	for _, r := range reported.Refused {
		p := problemOf(r.Err)
		answer.Refused = append(answer.Refused, Refusal{Ordinal: r.Ordinal, Code: p.code, Message: p.message})
	}
	return answer, nil
}

func (h *handler) attempt(c *call) (any, error) {
	query := c.r.URL.Query()
	wait, known := 0, false
	var err error
	if query.Has("waitTimeoutMs") {
		wait, err = strconv.Atoi(query.Get("waitTimeoutMs"))
		if most := int(MaxWait.Milliseconds()); err != nil || wait < 0 || wait > most {
			return nil, &taskbridge.ArgumentError{Field: "waitTimeoutMs", Reason: "must be a whole number from 0 to " + strconv.Itoa(most)}
		}
	}
	switch query.Get("cancellationKnown") {
	case "", "false":
	case "true":
		known = true
	default:
		return nil, &taskbridge.ArgumentError{Field: "cancellationKnown", Reason: "must be true or false"}
	}
	ctx, stop := h.untilDrain(c.r.Context())
	defer stop()
	row, err := h.opts.Service.Await(ctx, c.credential.grant.AttemptRef, taskbridge.AwaitRequest{
		Wait: time.Duration(wait) * time.Millisecond, CancellationKnown: known,
	})
	if err != nil {
		return nil, err
	}
	return h.attemptOf(row, c.credential.grant), nil
}

// untilDrain returns a context that ends early when the server drains.
func (h *handler) untilDrain(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	if h.opts.Draining != nil {
		watcher.Go(func() {
			select {
			case <-h.opts.Draining:
				cancel()
			case <-ctx.Done():
			}
		})
	}
	return ctx, func() {
		cancel()
		watcher.Wait()
	}
}

func (h *handler) input(c *call) (any, error) {
	row, err := h.opts.Service.Await(c.r.Context(), c.credential.grant.AttemptRef, taskbridge.AwaitRequest{})
	if err != nil {
		return nil, err
	}
	return row.Input, nil
}

func (h *handler) notice(c *call) (any, error) {
	var request NoticeRequest
	if err := h.decode(c, noticeNames, &request); err != nil {
		return nil, err
	}
	message := taskbridge.Message{Text: request.Message, Level: taskbridge.MessageLevel(request.Level)}
	return struct{}{}, h.opts.Lifecycle.Notice(c.r.Context(), c.taskID, message)
}

func (h *handler) settle(c *call) (any, error) {
	outcome, err := h.decodeSettle(c)
	if err != nil {
		return nil, err
	}
	return struct{}{}, h.opts.Lifecycle.Settle(c.r.Context(), c.taskID, outcome)
}

func taskOf(row taskbridge.Task) Task {
	return Task{
		TaskID: row.ID, TaskType: row.Type, Owner: row.Owner, Input: row.Input, Metadata: row.Metadata,
		Traceparent: row.Traceparent, CreatedAt: row.CreatedAt, StartedAt: row.StartedAt,
	}
}

// attemptOf is the state of the attempt, with a token that is valid from now on.
func (h *handler) attemptOf(row taskbridge.Task, g grant) AttemptResponse {
	answer := AttemptResponse{
		TaskID: row.ID, Attempt: g.Attempt, Status: string(row.Status),
		CancellationRequested: !row.Cancellation.RequestedAt.IsZero(), CancelReason: row.Cancellation.Reason,
	}
	answer.Token, answer.TokenExpiresAt = h.opts.Signer.renew(g)
	return answer
}
