package taskbridge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// TaskStatus is the state of a task as clients see it.
type TaskStatus string

// The statuses. A task goes ACCEPTED, RUNNING and then to one of the terminal
// three, or from ACCEPTED straight to FAILED or CANCELLED.
const (
	StatusAccepted  TaskStatus = "ACCEPTED"
	StatusRunning   TaskStatus = "RUNNING"
	StatusCompleted TaskStatus = "COMPLETED"
	StatusFailed    TaskStatus = "FAILED"
	StatusCancelled TaskStatus = "CANCELLED"
)

// Valid reports whether s is one of the five statuses.
func (s TaskStatus) Valid() bool {
	return s == StatusAccepted || s == StatusRunning || s.Terminal()
}

// Terminal reports whether nothing changes after s.
func (s TaskStatus) Terminal() bool {
	return s == StatusCompleted || s == StatusFailed || s == StatusCancelled
}

// CanBecome reports whether a row of status s may be given the status next.
// Staying the same is always allowed.
func (s TaskStatus) CanBecome(next TaskStatus) bool {
	if s == next {
		return s.Valid()
	}
	switch s {
	case StatusAccepted:
		return next == StatusRunning || next == StatusFailed || next == StatusCancelled
	case StatusRunning:
		return next.Terminal()
	}
	return false
}

// SubmissionState says how far the hand-over of a task to its executor has come.
type SubmissionState string

// The submission states.
const (
	// SubmissionNone: nobody is submitting the task; it may be cancelled at once.
	SubmissionNone SubmissionState = ""
	// SubmissionClaimed: somebody is submitting the task, or died doing so;
	// until Submission.LeaseUntil nobody else may.
	SubmissionClaimed SubmissionState = "claimed"
	// SubmissionRecorded: the executor has the task.
	SubmissionRecorded SubmissionState = "submitted"
)

// Submission is the state of the hand-over of a task to its executor.
type Submission struct {
	State SubmissionState
	// LeaseUntil is when a claim ends without a record.
	LeaseUntil time.Time
	// Deadline is when a submission that is not recorded is barred.
	Deadline time.Time
	// Tries counts the calls of SubmitTask that were begun.
	Tries int
	// Barred keeps the work from starting: its submission came to nothing in time.
	Barred bool
	// ExecutorMissingSince is when the [Reconciler] first found that the type of a
	// task whose submission is recorded has no executor; zero while it has one.
	ExecutorMissingSince time.Time
}

// Cancellation is a client's wish that the work should stop.
type Cancellation struct {
	// RequestedAt is zero while there is none.
	RequestedAt time.Time
	// Reason is the client's, never empty once RequestedAt is set.
	Reason string
	// Tries counts how often the executor has been asked.
	Tries int
}

// DueKind is a kind of work that the [Reconciler] may owe a task.
type DueKind string

// The kinds of owed work.
const (
	// DueSubmission: the submission is not recorded.
	DueSubmission DueKind = "submission"
	// DueCancellation: a cancellation was asked for and nothing ended yet.
	DueCancellation DueKind = "cancellation"
	// DueStream: the row is ahead of its stream (only with separate stores).
	DueStream DueKind = "stream"
	// DueInspection: nothing was heard of the task for a while.
	DueInspection DueKind = "inspection"
	// DueRetention: the task has ended and is to disappear in time.
	DueRetention DueKind = "retention"
	// DueDeletion: the task has disappeared and what it left is to be deleted.
	// No row has it, only tombstones; see [TaskRegistry.RetireTask].
	DueDeletion DueKind = "deletion"
)

// DueKinds lists every [DueKind] that a row can have.
func DueKinds() []DueKind {
	return []DueKind{DueSubmission, DueCancellation, DueStream, DueInspection, DueRetention}
}

// Due holds the time from which on each kind of work is owed; zero: not owed.
type Due struct {
	Submission, Cancellation, Stream, Inspection, Retention time.Time
}

// Of returns the time of one kind, zero for one that rows do not have.
func (d Due) Of(kind DueKind) time.Time {
	switch kind {
	case DueSubmission:
		return d.Submission
	case DueCancellation:
		return d.Cancellation
	case DueStream:
		return d.Stream
	case DueInspection:
		return d.Inspection
	case DueRetention:
		return d.Retention
	}
	return time.Time{}
}

// Failure is the payload of TASK_FAILED. Code is a stable identifier in upper
// case with underscores; Message is for people; Retryable says whether creating
// the task anew, with a new client request id, may succeed.
type Failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// Failure codes of TaskBridge itself.
const (
	// CodeSubmissionFailed: the task could not be handed over in time; it never ran.
	CodeSubmissionFailed = "SUBMISSION_FAILED"
	// CodeSubmissionOutcomeUnknown: the runtime never said whether it has the task.
	CodeSubmissionOutcomeUnknown = "SUBMISSION_OUTCOME_UNKNOWN"
	// CodeExecutorLost: what ran the task has gone, and with it the outcome.
	CodeExecutorLost = "EXECUTOR_LOST"
)

// Suspension is the payload of TASK_SUSPENDED: the work waits for somebody.
type Suspension struct {
	// SuspendID is used once in a task.
	SuspendID string `json:"suspendId"`
	// Kind is USER_ACTION_REQUIRED, EXTERNAL_CONFIRMATION_PENDING or SYSTEM_PAUSED.
	Kind SuspensionKind `json:"kind"`
	// ReasonCode is a stable identifier of the application.
	ReasonCode string `json:"reasonCode"`
	// AllowedActions has at least one action type.
	AllowedActions []string `json:"allowedActions"`
	// SchemaVersion is 1 or more.
	SchemaVersion int `json:"schemaVersion"`
	// ExpiresAt may be nil: the suspension does not expire.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// UIHints and Interaction are JSON of the application, absent when nil.
	UIHints     json.RawMessage `json:"uiHints,omitempty"`
	Interaction json.RawMessage `json:"interaction,omitempty"`
}

// SuspensionKind says what a suspended task waits for.
type SuspensionKind string

// The kinds of suspension.
const (
	SuspendUserAction           SuspensionKind = "USER_ACTION_REQUIRED"
	SuspendExternalConfirmation SuspensionKind = "EXTERNAL_CONFIRMATION_PENDING"
	SuspendSystemPaused         SuspensionKind = "SYSTEM_PAUSED"
)

// Task is a task's durable row. It is a value: whoever holds one may change it
// without effect on the store, but must not write into its slices' backing
// arrays. Times are UTC in microseconds, zero where something did not happen.
type Task struct {
	// Written once, by CreateTask.

	// ID is made by [NewTaskID].
	ID string
	// Owner is the subject of the principal that created the task.
	Owner string
	// ClientRequestID is the client's idempotency key, unique for an owner.
	ClientRequestID string
	// Fingerprint tells one request from another under the same key; see [Fingerprint].
	Fingerprint string
	// Type selects the executor.
	Type string
	// Input and Metadata are compact JSON objects, never nil on a row.
	Input, Metadata json.RawMessage
	// Traceparent is the W3C trace context that the task was created under;
	// empty where there was none. Executors pass it on.
	Traceparent string
	CreatedAt   time.Time

	// Changed by UpdateTask.

	// Revision starts at 1 and is raised by each update.
	Revision int64
	Status   TaskStatus
	// UpdatedAt, StartedAt and FinishedAt are set by the lifecycle.
	UpdatedAt, StartedAt, FinishedAt time.Time

	// Attempt is the number of the newest attempt, 0 before the first start.
	Attempt int64
	// Claim is the identity of the execution that is the newest attempt.
	Claim string
	// PastClaims holds the claims of the attempts before, the latest last and at
	// most [MaxPastClaims]: none of them may start again.
	PastClaims []string
	// AttemptStartedAt is when the newest attempt was started.
	AttemptStartedAt time.Time
	// Starts counts the accepted calls of Start, but for those that joined under an
	// epoch of the claim's; it is the epoch of the producer that the last one
	// opened without.
	Starts int64
	// Controls counts the control events (see [EventAppend]) that the row asks
	// for. The stream counts those it has: where the row's number is higher,
	// the row is ahead of its stream.
	Controls int64
	// AttemptControl and SuspendControl are the ordinals of the control events
	// of the newest attempt after the first and of Suspension; 0 without one.
	// (TASK_STARTED is always 1, the terminal event always Controls.)
	AttemptControl, SuspendControl int64

	// Terminal is the payload of the terminal event, nil before the end.
	Terminal json.RawMessage

	Cancellation Cancellation
	Submission   Submission
	// Instance is the server instance in whose process the task runs; empty for
	// a runtime of its own.
	Instance string

	// Suspension is the latest one, nil where there was none or the task ended.
	Suspension *Suspension
	// SuspendIDs holds all ids used so far.
	SuspendIDs []string

	Due Due
}

// MaxPastClaims is how many claims of earlier attempts a row remembers.
const MaxPastClaims = 100

// CheckUpdate reports whether a store may replace the row t by next: the
// revision must be t's (else [ErrRevisionConflict]) and the status reachable
// (else [ErrIllegalTransition]). Every store applies it inside its own
// transaction, so that the rule is the same everywhere.
func (t Task) CheckUpdate(next Task) error {
	if t.Revision != next.Revision {
		return ErrRevisionConflict
	}
	if !t.Status.CanBecome(next.Status) {
		return fmt.Errorf("%w: %s to %s", ErrIllegalTransition, t.Status, next.Status)
	}
	return nil
}

// Clone returns a copy that shares no memory with t.
func (t Task) Clone() Task {
	t.Input = slices.Clone(t.Input)
	t.Metadata = slices.Clone(t.Metadata)
	t.Terminal = slices.Clone(t.Terminal)
	t.SuspendIDs = slices.Clone(t.SuspendIDs)
	t.PastClaims = slices.Clone(t.PastClaims)
	if t.Suspension != nil {
		s := *t.Suspension
		s.AllowedActions = slices.Clone(s.AllowedActions)
		s.UIHints = slices.Clone(s.UIHints)
		s.Interaction = slices.Clone(s.Interaction)
		if s.ExpiresAt != nil {
			at := *s.ExpiresAt
			s.ExpiresAt = &at
		}
		t.Suspension = &s
	}
	return t
}

// Failure returns the failure of a FAILED task, else false.
func (t Task) Failure() (Failure, bool) {
	var f Failure
	if t.Status != StatusFailed || json.Unmarshal(t.Terminal, &f) != nil {
		return Failure{}, false
	}
	return f, true
}

// Result returns the result of a COMPLETED task, else false. It may be the JSON
// null.
func (t Task) Result() (json.RawMessage, bool) {
	var p struct {
		Result json.RawMessage `json:"result"`
	}
	if t.Status != StatusCompleted || json.Unmarshal(t.Terminal, &p) != nil {
		return nil, false
	}
	return p.Result, true
}

var taskIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,254}$`)

// ValidTaskID reports whether id has the form of a task id: it does not say
// that there is such a task.
func ValidTaskID(id string) bool {
	return taskIDPattern.MatchString(id) && !strings.Contains(id, "..")
}

var taskIDRandom = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewTaskID makes the id of a new task: its bucket as three hex digits, a
// hyphen, and 128 random bits.
func NewTaskID(owner, clientRequestID string) string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: see package crypto/rand
	return fmt.Sprintf("%03x-%s", Bucket(owner, clientRequestID), taskIDRandom.EncodeToString(random[:]))
}

// Bucket returns the bucket (0 to 1023) of an idempotency key: the first ten
// bits of SHA-256 over the length-prefixed owner and client request id. A store
// that is spread over nodes keeps all that belongs to one bucket together.
func Bucket(owner, clientRequestID string) int {
	h := sha256.New()
	var size [8]byte
	for _, s := range []string{owner, clientRequestID} {
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		h.Write(size[:])
		h.Write([]byte(s))
	}
	return int(binary.BigEndian.Uint16(h.Sum(nil)) >> 6)
}
