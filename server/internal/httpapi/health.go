package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// readyTimeout bounds all checks of /ready together.
const readyTimeout = 2 * time.Second

// health says that the process answers.
func (a *API) health(w http.ResponseWriter, r *http.Request) {
	a.write(w, r, []byte(`{"status":"ok"}`), http.StatusOK)
}

// ready says whether the server can do its work now. Why a part cannot is for
// the log alone, since anybody may ask.
func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()

	answer := struct {
		Status  string            `json:"status"`
		Details map[string]string `json:"details"`
	}{"ready", make(map[string]string, len(a.opts.Ready)+len(a.opts.Runtimes)+1)}
	status := http.StatusOK
	for name, err := range a.check(ctx) {
		answer.Details[name] = "ok"
		if err != nil {
			answer.Details[name] = "unavailable"
			if _, needed := a.opts.Ready[name]; needed {
				answer.Status, status = "not_ready", http.StatusServiceUnavailable
			}
			a.logger.Warn("a part is not ready", "part", name, "error", err)
		}
	}
	if a.drained.Err() != nil {
		answer.Details["server"] = "shutting down"
		answer.Status, status = "not_ready", http.StatusServiceUnavailable
	}
	body, err := json.Marshal(answer)
	if err != nil { // strings always encode
		panic(err)
	}
	a.write(w, r, body, status)
}

// check asks all parts at once.
func (a *API) check(ctx context.Context) map[string]error {
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		results = make(map[string]error, len(a.opts.Ready))
	)
	for _, checks := range []map[string]ReadyCheck{a.opts.Ready, a.opts.Runtimes} {
		for name, check := range checks {
			wg.Go(func() {
				err := check(ctx)
				mu.Lock()
				defer mu.Unlock()
				results[name] = err
			})
		}
	}
	wg.Wait()
	return results
}
