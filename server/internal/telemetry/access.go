package telemetry

// AuthMode is a way in which callers prove who they are.
type AuthMode string

// The modes.
const (
	AuthNone    AuthMode = "none" // nothing was presented
	AuthAPIKey  AuthMode = "api_key"
	AuthJWT     AuthMode = "jwt"
	AuthHeader  AuthMode = "identity_header"
	AuthUnclear AuthMode = "unclear" // more than one credential, or none by its form

	// Those of workers.
	AuthSubmissionToken AuthMode = "submission_token"
	AuthAttemptToken    AuthMode = "attempt_token"
)

var authModes = [...]AuthMode{
	AuthNone, AuthAPIKey, AuthJWT, AuthHeader, AuthUnclear, AuthSubmissionToken, AuthAttemptToken, other,
}

// AuthenticationFailed counts a request without credentials, or with bad ones; of
// a worker's token, also one that is good for something else.
func (t *Telemetry) AuthenticationFailed(mode AuthMode) {
	if t != nil {
		t.metrics.authFailures.WithLabelValues(string(authModes[indexOf(authModes[:], mode)])).Inc()
	}
}

// Limit is something that a caller can have too much of.
type Limit string

// The limits.
const (
	LimitRate         Limit = "rate"          // a caller's requests in a time
	LimitCreations    Limit = "creations"     // those of them that create
	LimitConcurrency  Limit = "concurrency"   // a caller's requests at once
	LimitStreams      Limit = "streams"       // a caller's streams at once
	LimitTotalStreams Limit = "total_streams" // everybody's streams at once

	LimitWorkerRate        Limit = "worker_rate"        // requests for one task in a time
	LimitWorkerConcurrency Limit = "worker_concurrency" // requests for one task at once
)

var limits = [...]Limit{
	LimitRate, LimitCreations, LimitConcurrency, LimitStreams, LimitTotalStreams, LimitWorkerRate, LimitWorkerConcurrency, other,
}

// RateLimited counts a request, or a stream, that a limit turned away.
func (t *Telemetry) RateLimited(limit Limit) {
	if t != nil {
		t.metrics.limited.WithLabelValues(string(limits[indexOf(limits[:], limit)])).Inc()
	}
}
