package httpapi

import (
	"net/http"
	"slices"

	"github.com/rs/cors"
)

// cors lets pages of the allowed origins read what is answered to them. Only
// those that are named may have the browser add credentials of its own.
func (a *API) cors(next http.Handler) http.Handler {
	if len(a.opts.AllowedOrigins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: a.opts.AllowedOrigins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{
			"Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "Cache-Control",
			headerRequestID, "Traceparent", "Tracestate",
		},
		ExposedHeaders:   []string{"Retry-After", "WWW-Authenticate", headerRequestID},
		AllowCredentials: !slices.Contains(a.opts.AllowedOrigins, "*"),
		MaxAge:           600,
	}).Handler(next)
}
