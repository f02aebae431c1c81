package app

import (
	"context"
	"errors"
	"log/slog"

	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/config"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
	"github.com/taskbridge/taskbridge/server/internal/ratelimit"
)

// newAuthenticator makes what the configuration turns on. What runs behind it
// ends with the teardown.
func newAuthenticator(c *config.Config, logger *slog.Logger, parts *teardown) (auth.Authenticator, error) {
	a := &c.Auth
	if !a.On() {
		return auth.Anyone(auth.Local()), nil
	}
	opts := auth.Options{WebSocketToken: a.WebSocketToken}
	if a.QueryToken {
		opts.QueryToken = httpapi.IsStream
	}
	var err error
	if a.Has(config.AuthProxy) {
		if opts.Identity, err = auth.NewIdentity(identityOptions(a.Proxy)); err != nil {
			return nil, err
		}
	}
	if a.Has(config.AuthAPIKey) {
		opts.APIKeys, err = auth.OpenAPIKeys(auth.APIKeyOptions{
			File: a.APIKeys.File, ReloadInterval: a.APIKeys.ReloadInterval, MaxStale: a.APIKeys.MaxStale, Logger: logger,
		})
		if err != nil {
			return nil, err
		}
	}
	if a.Has(config.AuthJWT) {
		if opts.JWT, err = auth.OpenJWT(jwtOptions(a.JWT, logger)); err != nil {
			if opts.APIKeys != nil {
				err = errors.Join(err, opts.APIKeys.Close())
			}
			return nil, err
		}
	}
	chain, err := auth.New(opts)
	if err != nil {
		return nil, err
	}
	parts.add("authentication", func(context.Context) error { return chain.Close() })
	return chain, nil
}

func identityOptions(p config.Proxy) auth.IdentityOptions {
	return auth.IdentityOptions{
		SubjectHeader: p.SubjectHeader, ScopesHeader: p.ScopesHeader, DefaultScopes: p.DefaultScopes,
		TrustedProxies: p.Trusted, Secrets: p.Secrets,
		TimestampHeader: p.TimestampHeader, SignatureHeader: p.SignatureHeader, MaxAge: p.MaxAge,
	}
}

func jwtOptions(j config.JWT, logger *slog.Logger) auth.JWTOptions {
	if j.Leeway == 0 {
		j.Leeway = -1 // none, there
	}
	return auth.JWTOptions{
		Issuer: j.Issuer, Audiences: j.Audiences, Algorithms: j.Algorithms, Leeway: j.Leeway,
		SubjectClaim: j.SubjectClaim, ScopeClaim: j.ScopeClaim, ScopeMap: j.ScopeMap, DefaultScopes: j.DefaultScopes,
		KeysURL: j.KeysURL, RefreshInterval: j.RefreshInterval, FetchTimeout: j.FetchTimeout,
		KeysFile: j.KeysFile, ReloadInterval: j.ReloadInterval, MaxStale: j.MaxStale, Logger: logger,
	}
}

func newLimiter(l config.RateLimit) (*ratelimit.Limiter, error) {
	return ratelimit.New(ratelimit.Options{
		Requests:           ratelimit.Rate{PerSecond: l.RequestsPerSecond, Burst: l.RequestsBurst},
		Creates:            ratelimit.Rate{PerSecond: l.CreatesPerSecond, Burst: l.CreatesBurst},
		ConcurrentRequests: l.ConcurrentRequests, Streams: l.Streams, TotalStreams: l.TotalStreams,
	})
}
