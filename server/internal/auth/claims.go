package auth

import (
	"strings"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
	taskbridge "github.com/taskbridge/taskbridge/core"
)

var (
	errClaimsForm     = refuse(PresentedJWT, "the token's claims are malformed")
	errClaimsIssuer   = refuse(PresentedJWT, "the token is of another issuer")
	errClaimsAudience = refuse(PresentedJWT, "the token is for another audience")
	errClaimsNoExpiry = refuse(PresentedJWT, "the token does not expire")
	errClaimsExpired  = refuse(PresentedJWT, "the token has expired")
	errClaimsEarly    = refuse(PresentedJWT, "the token is not valid yet")
	errClaimsSubject  = refuse(PresentedJWT, "the token names no usable subject")
	errClaimsScopes   = refuse(PresentedJWT, "the token's scopes are malformed")
)

// principal reads the claims of a token whose signature is good. The decoder is
// the library's own: it takes names literally and refuses a name that is there
// twice, where two readers could differ about what a token says.
func (j *JWT) principal(payload []byte) (taskbridge.Principal, error) {
	var (
		none       taskbridge.Principal
		registered jwt.Claims
		claims     map[string]any
	)
	if json.Unmarshal(payload, &registered) != nil || json.Unmarshal(payload, &claims) != nil {
		return none, errClaimsForm
	}
	if err := j.checkRegistered(registered); err != nil {
		return none, err
	}
	subject, ok := claim(claims, j.opts.SubjectClaim).(string)
	if !ok || checkSubject(subject) != nil {
		return none, errClaimsSubject
	}
	scopes, err := j.scopes(claims)
	if err != nil {
		return none, err
	}
	return taskbridge.Principal{Subject: subject, Scopes: scopes}, nil
}

func (j *JWT) checkRegistered(claims jwt.Claims) error {
	ours := false
	for _, name := range j.opts.Audiences {
		ours = ours || claims.Audience.Contains(name)
	}
	now := j.opts.Clock.Now()
	switch {
	case claims.Issuer != j.opts.Issuer:
		return errClaimsIssuer
	case !ours:
		return errClaimsAudience
	case claims.Expiry == nil:
		return errClaimsNoExpiry
	case !now.Before(claims.Expiry.Time().Add(j.opts.Leeway)):
		return errClaimsExpired
	case claims.NotBefore != nil && now.Before(claims.NotBefore.Time().Add(-j.opts.Leeway)):
		return errClaimsEarly
	}
	return nil
}

// claim returns a claim by its name or, if there is none of that name, by its
// path; nil if there is neither.
func claim(claims map[string]any, name string) any {
	if value, ok := claims[name]; ok {
		return value
	}
	var value any = claims
	for part := range strings.SplitSeq(name, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[part]
	}
	return value
}

func (j *JWT) scopes(claims map[string]any) ([]taskbridge.Scope, error) {
	var value any
	if j.opts.ScopeClaim != "" {
		value = claim(claims, j.opts.ScopeClaim)
	} else if value = claims["scope"]; value == nil {
		value = claims["scp"]
	}
	if value == nil {
		return orderScopes(j.opts.DefaultScopes), nil
	}
	values, ok := scopeValues(value)
	if !ok {
		return nil, errClaimsScopes
	}
	var scopes []taskbridge.Scope
	for _, value := range values {
		if j.opts.ScopeMap != nil {
			scopes = append(scopes, j.opts.ScopeMap[value]...)
		} else {
			scopes = append(scopes, taskbridge.Scope(value))
		}
	}
	return orderScopes(scopes), nil
}

// scopeValues takes a text with spaces between the values, or a list of them.
func scopeValues(value any) ([]string, bool) {
	switch value := value.(type) {
	case string:
		return strings.Fields(value), true
	case []any:
		values := make([]string, len(value))
		for i, element := range value {
			text, ok := element.(string)
			if !ok {
				return nil, false
			}
			values[i] = text
		}
		return values, true
	}
	return nil, false
}
