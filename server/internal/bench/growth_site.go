package bench

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// site is a store of finished tasks with a server over it, in this process, and
// clients that are connected to that over loopback.
type site struct {
	dir     string
	store   *sqlitestore.Store
	bridge  *taskbridge.Bridge
	server  *server
	clients []*client

	places []taskbridge.ListCursor
	at     atomic.Int64 // how many places were taken

	logFull bool
}

// fillSites makes two stores of finished tasks: one of a thousand, and one of n,
// a multiple of it, which begins as a copy of the first.
func fillSites(ctx context.Context, small, large string, n int) error {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: small})
	if err != nil {
		return err
	}
	err = bulk.Finish(ctx, taskbridge.Stores{Tasks: store, Events: store}, smallStore)
	if err := errors.Join(err, store.Close(), os.MkdirAll(large, 0o700)); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(large, databaseName), filepath.Join(small, databaseName)); err != nil {
		return err
	}
	return bulk.Multiply(ctx, large, n, taskEvery)
}

// databaseName is the store's file in its folder.
const databaseName = "taskbridge.db"

func openSite(ctx context.Context, opts Options, dir string) (_ *site, err error) {
	s := &site{dir: dir}
	if s.places, err = bulk.Sample(ctx, dir, places); err != nil {
		return nil, err
	}
	return s, s.open(ctx, opts)
}

func (s *site) open(ctx context.Context, opts Options) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.store, err = sqlitestore.Open(ctx, sqlitestore.Options{Dir: s.dir}); err != nil {
		return err
	}
	handler, bridge, err := newAPI(s.store)
	if err != nil {
		return err
	}
	s.bridge = bridge
	if s.server, err = serve(ctx, handler); err != nil {
		return err
	}
	for range max(opts.Callers, 64) {
		c, err := dial(ctx, s.server.address)
		if err != nil {
			return err
		}
		s.clients = append(s.clients, c)
	}
	return nil
}

func (s *site) close() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.conn.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.close())
	}
	if s.bridge != nil {
		s.bridge.Subscription.Close()
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// copied opens a site over a copy of the files. Nothing may have been written to
// the store since it was opened.
func (s *site) copied(ctx context.Context, opts Options) (*site, error) {
	dir, err := os.MkdirTemp(filepath.Dir(s.dir), "copy-")
	if err != nil {
		return nil, err
	}
	c := &site{dir: dir, places: s.places}
	if err := errors.Join(copyFile(filepath.Join(dir, databaseName), filepath.Join(s.dir, databaseName)), c.open(ctx, opts)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// remove closes the site and removes its files.
func (s *site) remove() error { return errors.Join(s.close(), os.RemoveAll(s.dir)) }

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// place is another task each time.
func (s *site) place() taskbridge.ListCursor {
	return s.places[int(s.at.Add(1))%len(s.places)]
}

// list reads a page of as many rows as a client gets who asks for no number.
func (s *site) list(ctx context.Context, after taskbridge.ListCursor) error {
	_, err := s.store.ListTasks(ctx, taskbridge.TaskQuery{Owner: bulk.Owner, After: after, Limit: taskbridge.DefaultListLimit + 1})
	return err
}

// pageAfter is the cursor that a client would have got with the page before.
func pageAfter(place taskbridge.ListCursor) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(place.CreatedAt.UnixMicro(), 10) + " " + place.TaskID))
}

func createOverHTTP(_ context.Context, s *site, caller int) error {
	body := fmt.Appendf(nil, `{"clientRequestId":%q,"taskType":"bench","input":{"files":["a.txt","b.txt"],"depth":3},"metadata":{"from":"bench"}}`, rand.Text())
	return s.clients[caller].post("/api/v1/tasks", body, "201")
}

// fillLog brings the write-ahead log to its full length, once: to write it again
// takes less time than to make it longer.
func (s *site) fillLog(ctx context.Context) error {
	if s.logFull {
		return nil
	}
	s.logFull = true
	input := []byte(`{"text":"` + strings.Repeat("x", 1<<20-100) + `"}`)
	for range 20 {
		if err := s.insert(ctx, input); err != nil {
			return err
		}
	}
	return nil
}

// createInStore makes a row and nothing else.
func createInStore(ctx context.Context, s *site, _ int) error {
	return s.insert(ctx, []byte(`{"files":["a.txt","b.txt"],"depth":3}`))
}

func (s *site) insert(ctx context.Context, input []byte) error {
	key, now := rand.Text(), time.Now().UTC().Truncate(time.Microsecond)
	_, inserted, err := s.store.CreateTask(ctx, taskbridge.Task{
		ID: taskbridge.NewTaskID(bulk.Owner, key), Owner: bulk.Owner, ClientRequestID: key, Fingerprint: "bench", Type: bulk.Type,
		Input: input, Metadata: []byte(`{"from":"bench"}`),
		CreatedAt: now, UpdatedAt: now, Status: taskbridge.StatusAccepted, Due: taskbridge.Due{Submission: now.Add(time.Hour)},
	})
	if err == nil && !inserted {
		err = errors.New("the key was there")
	}
	return err
}
