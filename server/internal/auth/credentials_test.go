package auth

import (
	"strings"
	"testing"
)

var everywhere = places{apiKeyHeader: true, protocols: true, query: true}

func TestATokenIsFoundWhereItMayBe(t *testing.T) {
	const webSocket = "Upgrade: websocket"
	for _, test := range []struct {
		name    string
		in      places
		target  string
		headers []string
		want    string // "": none
		refused error
	}{
		{"bearer", everywhere, "/", []string{"Authorization: Bearer abc.DEF-1_~+/=="}, "abc.DEF-1_~+/==", nil},
		{"scheme in other case", everywhere, "/", []string{"Authorization: bEARER abc"}, "abc", nil},
		{"more spaces", everywhere, "/", []string{"Authorization: Bearer   abc"}, "abc", nil},
		{"API key", everywhere, "/", []string{"X-API-Key: abc"}, "abc", nil},
		{"query", everywhere, "/?lastEventId=3&access_token=abc", nil, "abc", nil},
		{"query, escaped", everywhere, "/?access%5Ftoken=abc", nil, "", nil}, // nobody writes it so; see below
		{"subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: taskbridge.v1, bearer.abc"}, "abc", nil},
		{"subprotocol in a line of its own", everywhere, "/",
			[]string{"Upgrade: WebSocket", "Sec-WebSocket-Protocol: taskbridge.v1", "Sec-WebSocket-Protocol: bearer.abc"}, "abc", nil},
		{"the same in all places", everywhere, "/?access_token=abc",
			[]string{webSocket, "Authorization: Bearer abc", "X-API-Key: abc", "Sec-WebSocket-Protocol: bearer.abc"}, "abc", nil},

		{"nothing", everywhere, "/", nil, "", nil},
		{"another scheme", everywhere, "/", []string{"Authorization: Basic YWJj"}, "", nil},
		{"a scheme that begins so", everywhere, "/", []string{"Authorization: BearerX abc"}, "", nil},
		{"another subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: chat, Bearer.abc"}, "", nil},
		{"subprotocol without an upgrade", everywhere, "/", []string{"Sec-WebSocket-Protocol: bearer.abc"}, "", nil},
		{"another parameter", everywhere, "/?token=abc", nil, "", nil},
		{"API key, off", places{}, "/", []string{"X-API-Key: abc"}, "", nil},
		{"subprotocol, off", places{}, "/", []string{webSocket, "Sec-WebSocket-Protocol: bearer.abc"}, "", nil},
		{"query, off", places{}, "/?access_token=abc", nil, "", nil},
		{"cookie", everywhere, "/", []string{"Cookie: access_token=abc"}, "", nil},

		{"two tokens", everywhere, "/?access_token=abc", []string{"Authorization: Bearer abd"}, "", errTwoCredentials},
		{"two in the query", everywhere, "/?access_token=abc&access_token=abd", nil, "", errTwoCredentials},
		{"two authorizations", everywhere, "/", []string{"Authorization: Bearer abc", "Authorization: Bearer abc"}, "", errTwoCredentials},
		{"two keys", everywhere, "/", []string{"X-API-Key: abc", "X-API-Key: abd"}, "", errTwoCredentials},
		{"two subprotocols", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: bearer.abc, bearer.abd"}, "", errTwoCredentials},
		{"bearer without a token", everywhere, "/", []string{"Authorization: Bearer"}, "", errTokenForm},
		{"bearer and spaces", everywhere, "/", []string{"Authorization: Bearer  "}, "", errTokenForm},
		{"two words", everywhere, "/", []string{"Authorization: Bearer abc def"}, "", errTokenForm},
		{"a list", everywhere, "/", []string{"Authorization: Bearer abc, Bearer def"}, "", errTokenForm},
		{"padding alone", everywhere, "/", []string{"Authorization: Bearer =="}, "", errTokenForm},
		{"padding in the middle", everywhere, "/", []string{"Authorization: Bearer a=b"}, "", errTokenForm},
		{"no ASCII", everywhere, "/", []string{"Authorization: Bearer äbc"}, "", errTokenForm},
		{"empty key", everywhere, "/", []string{"X-API-Key: "}, "", errTokenForm},
		{"empty subprotocol", everywhere, "/", []string{webSocket, "Sec-WebSocket-Protocol: taskbridge.v1, bearer."}, "", errTokenForm},
		{"empty parameter", everywhere, "/?access_token=", nil, "", errTokenForm},
		{"bad query", everywhere, "/?access_token=%zz", nil, "", errTokenForm},
		{"as long as may be", everywhere, "/", []string{"X-API-Key: " + strings.Repeat("a", maxToken)}, strings.Repeat("a", maxToken), nil},
		{"oversize", everywhere, "/", []string{"X-API-Key: " + strings.Repeat("a", maxToken+1)}, "", errTokenLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := findCredential(request(test.target, test.headers...), test.in)
			switch {
			case test.refused != nil:
				wantRefusal(t, err, test.refused)
			case err != nil:
				t.Errorf("refused: %v", err)
			case test.want == "" && got != nil:
				t.Errorf("found %q", got.token)
			case test.want != "" && (got == nil || got.token != test.want):
				t.Errorf("found %v, want %q", got, test.want)
			}
		})
	}
}
