package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	tbclient "github.com/taskbridge/taskbridge/core/client"
	"github.com/taskbridge/taskbridge/core/remote"
	"github.com/taskbridge/taskbridge/core/workerapi"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// tokensName selects the token stream among the figures.
const tokensName = "tokens"

// Tokens is the way of a token from a worker elsewhere, at a thousand a second,
// to a client that follows the task by server-sent events. Of each figure the
// median of the samples.
type Tokens struct {
	PerSecond         float64 `json:"perSecond"` // as they really came
	P50Millis         float64 `json:"p50Millis"`
	P99Millis         float64 `json:"p99Millis"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	AimP99Millis      float64 `json:"aimP99Millis"`
	AimRequests       float64 `json:"aimRequestsPerSecond"`
	Met               bool    `json:"met"`
}

const tokensPerSecond = 1000

// measureTokens takes the samples.
func measureTokens(ctx context.Context, o Options) (*Tokens, error) {
	var samples []Tokens
	for i := range o.Samples {
		dir, err := scratch(o.Dir)
		if err != nil {
			return nil, err
		}
		s, err := sampleTokens(ctx, o, dir)
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			return nil, err
		}
		o.Progress("tokens %d/%d: p50 %.1f ms, p99 %.1f ms, %.1f requests/s", i+1, o.Samples, s.P50Millis, s.P99Millis, s.RequestsPerSecond)
		samples = append(samples, s)
	}
	of := func(field func(Tokens) float64) float64 {
		var values []float64
		for _, s := range samples {
			values = append(values, field(s))
		}
		return median(values)
	}
	t := &Tokens{
		PerSecond: of(func(t Tokens) float64 { return t.PerSecond }), P50Millis: of(func(t Tokens) float64 { return t.P50Millis }),
		P99Millis: of(func(t Tokens) float64 { return t.P99Millis }), RequestsPerSecond: of(func(t Tokens) float64 { return t.RequestsPerSecond }),
		AimP99Millis: 50, AimRequests: 30,
	}
	t.Met = t.P99Millis <= t.AimP99Millis && t.RequestsPerSecond <= t.AimRequests
	return t, nil
}

// sampleTokens has one worker report and one client follow.
func sampleTokens(ctx context.Context, o Options, dir string) (t Tokens, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	handler, bridge, err := newAPI(store)
	if err != nil {
		return t, err
	}
	defer bridge.Subscription.Close()
	workers, _, err := newWorkerAPI(store)
	if err != nil {
		return t, err
	}
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.HandleFunc(workerapi.BasePath, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		workers.handler.ServeHTTP(w, r)
	})
	s, err := serve(ctx, mux)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	c, err := tbclient.New(tbclient.Options{URL: "http://" + s.address})
	if err != nil {
		return t, err
	}
	created, err := c.Create(ctx, tbclient.CreateRequest{TaskType: "bench"})
	if err != nil {
		return t, err
	}
	token, err := workers.signer.SubmissionToken(created.TaskID)
	if err != nil {
		return t, err
	}
	lifecycle, err := remote.NewLifecycle(remote.Options{URL: "http://" + s.address})
	if err != nil {
		return t, err
	}
	defer lifecycle.CloseIdleConnections()

	var sent sync.Map // by the token's number, when
	arrived := make(chan []time.Duration, 1)
	followed := make(chan error, 1)
	go func() {
		var delays []time.Duration
		next := 0
		for event, err := range c.Follow(ctx, created.TaskID, tbclient.FollowOptions{}) {
			if err != nil {
				followed <- err
				return
			}
			now := time.Now()
			for range strings.Count(string(event.Payload), "token ") {
				at, ok := sent.Load(next)
				if !ok {
					followed <- fmt.Errorf("token %d came before it was sent", next)
					return
				}
				delays = append(delays, now.Sub(at.(time.Time)))
				next++
			}
		}
		arrived <- delays
		followed <- nil
	}()
	began := time.Now()
	err = reportTokens(ctx, o, lifecycle, created.TaskID, token, &sent)
	elapsed := time.Since(began).Seconds()
	if err != nil {
		cancel()
		return t, errors.Join(err, <-followed)
	}
	if err := <-followed; err != nil {
		return t, err
	}
	delays := <-arrived
	slices.Sort(delays)
	millis := func(part float64) float64 {
		return delays[int(part*float64(len(delays)-1))].Seconds() * 1000
	}
	return Tokens{
		PerSecond: float64(len(delays)) / elapsed, P50Millis: millis(0.5), P99Millis: millis(0.99),
		RequestsPerSecond: float64(requests.Load()) / elapsed,
	}, nil
}

// reportTokens reports at the pace for the length of a sample, and completes.
func reportTokens(ctx context.Context, o Options, lifecycle taskbridge.TaskLifecycle, taskID, token string, sent *sync.Map) error {
	run, err := lifecycle.Start(ctx, taskID, taskbridge.Claim{ID: "bench", Token: token})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second / tokensPerSecond)
	defer ticker.Stop()
	began, n := time.Now(), 0
	for time.Since(began) < o.Duration {
		<-ticker.C
		// A tick that came late is made up for.
		for ; n < int(time.Since(began).Seconds()*tokensPerSecond); n++ {
			sent.Store(n, time.Now())
			if err := run.Token(ctx, "token "); err != nil {
				return errors.Join(err, run.Close())
			}
		}
	}
	return errors.Join(run.Complete(ctx, taskbridge.Completion{}), run.Close())
}

// write adds the lines of the table.
func (t *Tokens) write(row func(format string, args ...any)) {
	verdict := "missed"
	if t.Met {
		verdict = "met"
	}
	row("a worker's tokens, %.0f/s, to one client\tp50 %.1f ms, p99 %.1f ms, %.1f requests/s\taim: p99 %.0f ms, %.0f requests/s\t%s",
		t.PerSecond, t.P50Millis, t.P99Millis, t.RequestsPerSecond, t.AimP99Millis, t.AimRequests, verdict)
}
