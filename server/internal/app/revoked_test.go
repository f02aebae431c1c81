package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/auth"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
)

// hasten makes streams ask soon whether their credentials are still good. (Not
// too soon for WebSockets: a client has three heartbeats to answer a ping.)
func hasten(o *httpapi.Options) {
	o.Recheck, o.Heartbeat, o.SocketHeartbeat = 50*time.Millisecond, 50*time.Millisecond, 2*time.Second
}

// ending is a way in which a credential ends. Both credentials are of the same
// subject, so that a task is theirs alike.
type ending struct {
	args []string
	good func() http.Header
	// doomed returns one that ends after about this time, if it does so by itself.
	doomed func(life time.Duration) http.Header
	end    func() // ends it; nil: it ends by itself
	then   int    // the status of its next request
}

func ofKeys(t *testing.T, change func(auth.KeyEntry) []auth.KeyEntry, then int) ending {
	ring := newKeyring(t, auth.KeyEntry{ID: "good", Subject: "alice", Scopes: both()}, auth.KeyEntry{ID: "doomed", Subject: "alice", Scopes: both()})
	return ending{
		args:   []string{"--auth-modes", "apikey", "--auth-api-keys-file", ring.file, "--auth-api-keys-reload-interval", "20ms"},
		good:   func() http.Header { return bearer(ring.keys["good"]) },
		doomed: func(time.Duration) http.Header { return bearer(ring.keys["doomed"]) },
		end:    func() { ring.put(t, append(change(ring.entries["doomed"]), ring.entries["good"])...) },
		then:   then,
	}
}

func ofTokens(t *testing.T) (*issuer, []string) {
	provider := newIssuer(t)
	return provider, []string{
		"--auth-modes", "jwt", "--auth-jwt-issuer", "https://id.example", "--auth-jwt-audiences", "taskbridge",
		"--auth-jwt-keys-url", provider.URL, "--auth-jwt-refresh-interval", "20ms", "--auth-jwt-leeway", "0s",
	}
}

var endings = map[string]func(*testing.T) ending{
	"a key that is taken off the file": func(t *testing.T) ending {
		return ofKeys(t, func(auth.KeyEntry) []auth.KeyEntry { return nil }, http.StatusUnauthorized)
	},
	"a key that expires": func(t *testing.T) ending {
		return ofKeys(t, func(e auth.KeyEntry) []auth.KeyEntry {
			e.ExpiresAt = time.Now().Add(500 * time.Millisecond)
			return []auth.KeyEntry{e}
		}, http.StatusUnauthorized)
	},
	"a key that may not read any more": func(t *testing.T) ending {
		return ofKeys(t, func(e auth.KeyEntry) []auth.KeyEntry {
			e.Scopes = []taskbridge.Scope{taskbridge.ScopeWrite}
			return []auth.KeyEntry{e}
		}, http.StatusForbidden)
	},
	"a key that is somebody else's now": func(t *testing.T) ending {
		return ofKeys(t, func(e auth.KeyEntry) []auth.KeyEntry {
			e.Subject = "bob"
			return []auth.KeyEntry{e}
		}, http.StatusNotFound)
	},
	"a token whose key has left the set": func(t *testing.T) ending {
		provider, args := ofTokens(t)
		old := provider.rotate(t, "old")
		oldKey := provider.key
		// Both keys are in the set while one is replaced by the other.
		renewed := provider.rotate(t, "new")
		provider.publishBeside(public(oldKey, "old"))
		return ending{
			args: args, then: http.StatusUnauthorized,
			good:   func() http.Header { return bearer(renewed) },
			doomed: func(time.Duration) http.Header { return bearer(old) },
			end:    func() { provider.publishBeside() },
		}
	},
	"a token that expires": func(t *testing.T) ending {
		provider, args := ofTokens(t)
		good := provider.rotate(t, "k")
		return ending{
			args: args, then: http.StatusUnauthorized,
			good:   func() http.Header { return bearer(good) },
			doomed: func(life time.Duration) http.Header { return bearer(provider.token(t, life)) },
		}
	},
	"a signature that grows old": func(t *testing.T) ending {
		secret := strings.Repeat("s", 32)
		const maxAge = time.Second
		signed := func(at time.Time) http.Header {
			timestamp, signature := auth.SignIdentity([]byte(secret), "alice", "", at)
			return http.Header{"X-Taskbridge-Subject": {"alice"}, "X-Taskbridge-Timestamp": {timestamp}, "X-Taskbridge-Signature": {signature}}
		}
		ring := newKeyring(t, auth.KeyEntry{ID: "good", Subject: "alice", Scopes: both()})
		return ending{
			args: []string{
				"--auth-modes", "proxy,apikey", "--auth-api-keys-file", ring.file, "--auth-proxy-secrets", secret,
				"--auth-proxy-default-scopes", "tasks:read", "--auth-proxy-max-age", maxAge.String(),
			},
			then:   http.StatusUnauthorized,
			good:   func() http.Header { return bearer(ring.keys["good"]) },
			doomed: func(life time.Duration) http.Header { return signed(time.Now().Add(life - maxAge)) },
		}
	},
}

func TestStreamsEndWithTheirCredentialAndThoseOfAGoodOneLiveOn(t *testing.T) {
	t.Parallel()
	for name, prepare := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := prepare(t)
			s := startServer(t, load(t, append(e.args, "--store", "memory", "--rate-limit-requests-per-second", "0")...), openStore, hasten)
			idle, started := s.demo(e.good(), "idle", 3_600_000)
			busy, _ := s.demo(e.good(), "busy", 20)

			good := s.followBy(transports, map[string]string{idle: "", busy: ""}, e.good())
			doomed, credential := s.followDoomed(e, map[string]string{idle: started, busy: ""})
			if e.end != nil {
				e.end()
			}
			for _, f := range doomed {
				f.wantEnd(errCut)
			}
			if status, row := s.exchange("GET", "/api/v1/tasks/"+idle, credential, ""); status != e.then {
				t.Errorf("a new request is answered %d %v", status, row)
			}

			for task, followers := range good {
				for _, f := range followers {
					if task == busy {
						f.until(f.seen() + 3)
					}
				}
				if status, answer := s.exchange("POST", "/api/v1/tasks/"+task+"/cancel", e.good(), ""); status != http.StatusAccepted {
					t.Errorf("%d %v", status, answer)
				}
				for _, f := range followers {
					f.wantEnd(io.EOF)
				}
			}
			if err := s.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// followBy follows tasks, each from its cursor, by some transports.
func (i *instance) followBy(by []string, tasks map[string]string, credential http.Header) map[string][]*follower {
	i.t.Helper()
	followers := map[string][]*follower{}
	for task, after := range tasks {
		for _, transport := range by {
			f, status := i.follow(transport, task, credential, after)
			if f == nil {
				i.t.Fatalf("%s: %d", transport, status)
			}
			followers[task] = append(followers[task], f)
		}
	}
	return followers
}

// followDoomed opens the streams whose credential is to end. Where it ends by
// itself, and does so before all are open, another is given more time.
func (i *instance) followDoomed(e ending, tasks map[string]string) (followers []*follower, credential http.Header) {
	i.t.Helper()
next:
	for life := 2 * time.Second; ; life *= 2 {
		if life > 20*time.Second {
			i.t.Fatal("the streams cannot be opened in time")
		}
		credential, followers = e.doomed(life), nil
		for task, after := range tasks {
			for _, transport := range transports {
				f, status := i.follow(transport, task, credential, after)
				if f == nil && status == http.StatusUnauthorized && e.end == nil {
					continue next
				}
				if f == nil {
					i.t.Fatalf("%s: %d", transport, status)
				}
				followers = append(followers, f)
			}
		}
		// The polls among them are under way once something else was answered.
		if status, _ := i.exchange("GET", "/api/v1/tasks", credential, ""); status == http.StatusOK {
			return followers, credential
		}
	}
}

func TestStreamsOutliveAnOutageOfWhateverTheirCredentialsAreCheckedBy(t *testing.T) {
	provider, args := ofTokens(t)
	token := provider.rotate(t, "k")
	key := provider.key
	s := startServer(t, load(t, append(args, "--store", "memory", "--auth-jwt-max-stale", "50ms", "--rate-limit-requests-per-second", "0")...), openStore, hasten)
	s.until("GET", "/api/v1/tasks", token, http.StatusOK)
	task, _ := s.demo(bearer(token), "busy", 20)
	followers := s.followBy([]string{"sse", "websocket"}, map[string]string{task: ""}, bearer(token))[task]
	provider.publish(nil, "")
	// The keys are too old now to let anybody in.
	s.until("GET", "/api/v1/tasks", token, http.StatusServiceUnavailable)
	for _, f := range followers {
		f.until(f.seen() + 10)
	}
	provider.publish(key, "k")
	s.until("GET", "/api/v1/tasks", token, http.StatusOK)
	s.exchange("POST", "/api/v1/tasks/"+task+"/cancel", bearer(token), "")
	for _, f := range followers {
		f.wantEnd(io.EOF)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestAPollThatWasAskedWithAGoodCredentialIsAnsweredAndTheNextIsRefused(t *testing.T) {
	e := endings["a key that is taken off the file"](t)
	s := startServer(t, load(t, append(e.args, "--store", "memory", "--metrics-listen", "127.0.0.1:0", "--rate-limit-requests-per-second", "0")...), openStore, hasten)
	s.pollWait = time.Minute
	task, started := s.demo(e.good(), "idle", 3_600_000)
	s.untilMetric(`taskbridge_streams_open{transport="longpoll"} 0`) // demo's own
	f, _ := s.follow("longpoll", task, e.doomed(0), started)
	s.untilMetric(`taskbridge_streams_open{transport="longpoll"} 1`)
	e.end()
	s.until("GET", "/api/v1/tasks", strings.TrimPrefix(e.doomed(0).Get("Authorization"), "Bearer "), http.StatusUnauthorized)
	if status, answer := s.exchange("POST", "/api/v1/tasks/"+task+"/cancel", e.good(), ""); status != http.StatusAccepted {
		t.Errorf("%d %v", status, answer)
	}
	f.wantEnd(io.EOF)
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestWhicheverWayACredentialCameItIsFoundAgainWhileItsStreamLives(t *testing.T) {
	ring := newKeyring(t, auth.KeyEntry{ID: "k", Subject: "alice", Scopes: both()})
	key := ring.keys["k"]
	s := startServer(t, load(t, "--store", "memory", "--auth-modes", "apikey", "--auth-api-keys-file", ring.file,
		"--auth-api-keys-reload-interval", "20ms", "--auth-query-token"), openStore, hasten)
	task, _ := s.demo(bearer(key), "k", 20)
	var followers []*follower
	for _, way := range []struct {
		transport, query string
		header           http.Header
	}{
		{"websocket", "", http.Header{"Sec-Websocket-Protocol": {"taskbridge.v1, bearer." + key}}},
		{"websocket", "?access_token=" + key, nil},
		{"sse", "&access_token=" + key, nil},
		{"websocket", "", http.Header{"X-Api-Key": {key}}},
		{"sse", "", http.Header{"X-Api-Key": {key}}},
	} {
		s.query = way.query
		f, status := s.follow(way.transport, task, way.header, "")
		if f == nil {
			t.Fatalf("%+v: %d", way, status)
		}
		followers = append(followers, f)
	}
	s.query = ""
	for _, f := range followers {
		f.until(f.seen() + 20) // some four hundred milliseconds: asked more than once
	}
	ring.put(t)
	for _, f := range followers {
		f.wantEnd(errCut)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}
