package telemetry

// AuthMode is a way in which callers prove who they are.
type AuthMode string

// The modes.
const (
	AuthNone   AuthMode = "none"
	AuthAPIKey AuthMode = "api_key"
	AuthJWT    AuthMode = "jwt"
	AuthHeader AuthMode = "identity_header"
)

var authModes = [...]AuthMode{AuthNone, AuthAPIKey, AuthJWT, AuthHeader, other}

// AuthenticationFailed counts a request without credentials, or with bad ones.
func (t *Telemetry) AuthenticationFailed(mode AuthMode) {
	if t != nil {
		t.metrics.authFailures.WithLabelValues(string(authModes[indexOf(authModes[:], mode)])).Inc()
	}
}

// Limit is something that a caller can have too much of.
type Limit string

// The limits.
const (
	LimitRate        Limit = "rate"        // requests in a time
	LimitConcurrency Limit = "concurrency" // requests at once
	LimitStreams     Limit = "streams"     // streams at once
)

var limits = [...]Limit{LimitRate, LimitConcurrency, LimitStreams, other}

// RateLimited counts a request that was turned away with 429.
func (t *Telemetry) RateLimited(limit Limit) {
	if t != nil {
		t.metrics.limited.WithLabelValues(string(limits[indexOf(limits[:], limit)])).Inc()
	}
}
