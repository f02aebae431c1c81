package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func prepareReports(_ context.Context, o Options, _ string) (measured, ceiling sampler, err error) {
	return &reports{o}, &appends{o}, nil
}

// reports measures the worker API: each worker has a connection and an attempt of
// its own and waits for the answer before it sends the next batch.
type reports struct{ opts Options }

// reportsBatch is how many reports a request has.
const reportsBatch = 20

func (r *reports) close() error { return nil }

func (r *reports) sample(ctx context.Context, dir string) (rate float64, err error) {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	api, lifecycle, err := newWorkerAPI(store)
	if err != nil {
		return 0, err
	}
	s, err := serve(ctx, api.handler)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	var clients []*client
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.conn.Close())
		}
	}()
	one := fmt.Sprintf(`{"type":"progress","progress":%v,"stage":%q,"message":%q}`, progress.Percent, progress.Stage, progress.Message)
	batch := strings.Repeat(one+",", reportsBatch-1) + one
	rate, err = rateOf(ctx, r.opts, func(ctx context.Context, i int) (func() error, error) {
		run, err := startRun(ctx, store, lifecycle, fmt.Sprintf("reports-%d", i))
		if err != nil {
			return nil, err
		}
		taskID := run.Task().ID
		if err := run.Close(); err != nil {
			return nil, err
		}
		c, err := dial(ctx, s.address)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
		token, err := api.start(c, taskID, fmt.Sprintf("remote-%d", i))
		if err != nil {
			return nil, err
		}
		path, first := workerapi.BasePath+taskID+"/reports", 1
		var body []byte
		return func() error {
			body = fmt.Appendf(body[:0], `{"firstOrdinal":%d,"reports":[%s]}`, first, batch)
			first += reportsBatch
			return c.postAs(token, path, body, "200")
		}, nil
	})
	return rate * reportsBatch, err
}

// workerAPI is the server's side of the worker API.
type workerAPI struct {
	handler http.Handler
	signer  *workerapi.Signer
}

func newWorkerAPI(store *sqlitestore.Store) (*workerAPI, *taskbridge.LocalLifecycle, error) {
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: store, Events: store},
		Limits: taskbridge.Limits{StreamEvents: 1 << 27}, // a sample may be long
	})
	if err != nil {
		return nil, nil, err
	}
	service, err := taskbridge.NewWorkerService(lifecycle)
	if err != nil {
		return nil, nil, err
	}
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{make([]byte, workerapi.MinKeyBytes)}})
	if err != nil {
		return nil, nil, err
	}
	handler, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: lifecycle, Signer: signer})
	return &workerAPI{handler, signer}, lifecycle, err
}

// start starts the task and returns the attempt's token.
func (a *workerAPI) start(c *client, taskID, claim string) (string, error) {
	token, err := a.signer.SubmissionToken(taskID)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(workerapi.StartRequest{Claim: claim})
	if err != nil {
		return "", err
	}
	if err := c.postAs(token, workerapi.BasePath+taskID+"/start", body, "200"); err != nil {
		return "", err
	}
	var answer workerapi.StartResponse
	err = json.Unmarshal(c.body, &answer)
	return answer.Token, err
}

// postAs is post with a token.
func (c *client) postAs(token, path string, body []byte, status string) error {
	c.out = fmt.Appendf(c.out[:0], "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, token, len(body), body)
	return c.exchange(status)
}
