package auth

import (
	"net/http"
	"net/url"
	"strings"
)

// WebSocketProtocol is the subprotocol that the server speaks and echoes. A
// client that sends its token as another one must offer this one too.
const WebSocketProtocol = "taskbridge.v1"

const (
	// maxToken bounds a key or token, in bytes.
	maxToken = 16 << 10

	bearerProtocol  = "bearer."      // begins the subprotocol that carries a token
	queryToken      = "access_token" // RFC 6750, section 2.3
	headerAPIKey    = "X-Api-Key"    //nolint:gosec // the name of a header
	headerProtocols = "Sec-Websocket-Protocol"
)

var (
	errTwoCredentials = refuse(PresentedUnclear, "the request has more than one credential")
	errTokenForm      = refuse(PresentedUnclear, "the credential is malformed")
	errTokenLong      = refuse(PresentedUnclear, "the credential is too long")
)

// places says where a token is looked for beside the Authorization header.
type places struct {
	apiKeyHeader bool
	protocols    bool
	query        bool
}

// credential is a token as the request presents it.
type credential struct {
	token string
	// key: it came in a header that is for API keys alone.
	key bool
}

// findCredential returns the one credential that the request presents, nil if
// there is none. The same token in two places counts once: a client that cannot
// know which of them gets through may send both.
func findCredential(r *http.Request, in places) (*credential, error) {
	var found *credential
	add := func(token string, key bool) error {
		switch {
		case len(token) > maxToken:
			return errTokenLong
		case !validToken(token):
			return errTokenForm
		case found == nil:
			found = &credential{token: token, key: key}
		case found.token != token:
			return errTwoCredentials
		}
		return nil
	}
	authorization := r.Header["Authorization"]
	if len(authorization) > 1 {
		return nil, errTwoCredentials
	}
	for _, value := range authorization {
		// Another scheme's credential is none of ours: a proxy in front may
		// have asked for it.
		if scheme, token, _ := strings.Cut(value, " "); strings.EqualFold(scheme, "Bearer") {
			if err := add(strings.Trim(token, " "), false); err != nil {
				return nil, err
			}
		}
	}
	if in.apiKeyHeader {
		for _, value := range r.Header[headerAPIKey] {
			if err := add(value, true); err != nil {
				return nil, err
			}
		}
	}
	if in.protocols && isWebSocket(r) {
		for _, value := range r.Header[headerProtocols] {
			for protocol := range strings.SplitSeq(value, ",") {
				token, ok := strings.CutPrefix(strings.Trim(protocol, " \t"), bearerProtocol)
				if !ok {
					continue
				}
				if err := add(token, false); err != nil {
					return nil, err
				}
			}
		}
	}
	if in.query && strings.Contains(r.URL.RawQuery, queryToken) {
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, errTokenForm
		}
		for _, value := range values[queryToken] {
			if err := add(value, false); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

func isWebSocket(r *http.Request) bool {
	for _, value := range r.Header["Upgrade"] {
		if strings.EqualFold(strings.TrimSpace(value), "websocket") {
			return true
		}
	}
	return false
}

// validToken reports whether it has the form b64token of RFC 6750.
func validToken(token string) bool {
	body := strings.TrimRight(token, "=")
	if body == "" {
		return false
	}
	for i := range len(body) {
		switch c := body[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}
