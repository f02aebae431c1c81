package httpapi

import (
	"net/http"
	"testing"
	"time"
)

func TestPagesOfAllowedOriginsMayUseTheServer(t *testing.T) {
	const page = "https://app.example"
	for _, test := range []struct {
		name                 string
		allowed              []string
		origin, allows, cred string
	}{
		{"named", []string{page}, page, page, "true"},
		{"another", []string{page}, "https://evil.example", "", ""},
		{"any", []string{"*"}, page, "*", ""},
		{"none allowed", nil, page, "", ""},
	} {
		f := serve(t, func(o *Options) {
			o.AllowedOrigins, o.AccessControl, o.SubscribeTimeout = test.allowed, true, time.Millisecond
		})
		preflight := f.do("OPTIONS", "/api/v1/tasks", "", "Origin: "+test.origin, "Access-Control-Request-Method: POST",
			"Access-Control-Request-Headers: authorization,content-type,idempotency-key")
		plain := f.do("GET", "/api/v1/tasks", "", "Origin: "+test.origin)
		for kind, r := range map[string]reply{"preflight": preflight, "request": plain} {
			if got := r.Header.Get("Access-Control-Allow-Origin"); got != test.allows {
				t.Errorf("%s, %s: allows %q, want %q", test.name, kind, got, test.allows)
			}
			if got := r.Header.Get("Access-Control-Allow-Credentials"); got != test.cred {
				t.Errorf("%s, %s: credentials %q, want %q", test.name, kind, got, test.cred)
			}
		}
		if (preflight.Header.Get("Access-Control-Allow-Headers") != "") != (test.allows != "") {
			t.Errorf("%s: %v", test.name, preflight.Header)
		}
		if (plain.Header.Get("Access-Control-Expose-Headers") != "") != (test.allows != "") {
			t.Errorf("%s: %v", test.name, plain.Header)
		}
		post := f.do("POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"}`, "Origin: "+test.origin)
		want := http.StatusBadRequest
		if test.allows != "" {
			want = http.StatusCreated
		}
		if post.StatusCode != want {
			t.Errorf("%s: POST %d, want %d", test.name, post.StatusCode, want)
		}
		socket := f.do("GET", "/api/v1/tasks/ws", "", "Origin: "+test.origin, "Upgrade: websocket", "Connection: Upgrade",
			"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==")
		if (socket.StatusCode == http.StatusSwitchingProtocols) != (test.allows != "") {
			t.Errorf("%s: WebSocket %d", test.name, socket.StatusCode)
		}
	}
}

func TestWithAccessControlAPageOfTheServersOwnHostIsItsOwn(t *testing.T) {
	f := serve(t, func(o *Options) { o.AccessControl = true })
	body := `{"clientRequestId":"k","taskType":"scripted"}`
	f.expect(http.StatusCreated, "POST", "/api/v1/tasks", body, "Host: tasks.example", "Origin: https://tasks.example")
	f.expect(http.StatusBadRequest, "POST", "/api/v1/tasks", body, "Host: tasks.example", "Origin: http://127.0.0.1")
	f.expect(http.StatusBadRequest, "POST", "/api/v1/tasks", body, "Host: tasks.example", "Origin: null")

	f = serve(t, func(o *Options) { o.AccessControl, o.AllowedHosts = true, []string{"tasks.example"} })
	f.expect(http.StatusOK, "GET", "/api/v1/tasks", "", "Host: tasks.example")
	f.expect(http.StatusBadRequest, "GET", "/api/v1/tasks", "", "Host: other.example")
}
