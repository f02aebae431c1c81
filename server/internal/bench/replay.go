package bench

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// replayStreams is how many streams are replayed by turns: by the time that one
// comes again, nothing of it is in the server's memory.
const replayStreams = 4

// prepareReplay fills the streams; both samplers read them over HTTP.
func prepareReplay(ctx context.Context, o Options, dir string) (measured, ceiling sampler, err error) {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	taskIDs, err := fillStreams(ctx, store, o.Events)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	api, bridge, err := newAPI(store)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	scanner, err := rawConn(ctx, dir)
	if err != nil {
		bridge.Subscription.Close()
		return nil, nil, errors.Join(err, store.Close())
	}
	measured = &replay{opts: o, handler: api, taskIDs: taskIDs, release: func() error {
		bridge.Subscription.Close()
		return store.Close()
	}}
	ceiling = &replay{opts: o, handler: &scanAndWrite{scanner}, taskIDs: taskIDs, release: scanner.Close}
	return measured, ceiling, nil
}

// fillStreams makes tasks whose streams have that many events each.
func fillStreams(ctx context.Context, store *sqlitestore.Store, events int) ([]string, error) {
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: store, Events: store},
		Limits: taskbridge.Limits{StreamEvents: int64(events)},
	})
	if err != nil {
		return nil, err
	}
	var (
		wg      sync.WaitGroup
		taskIDs [replayStreams]string
		errs    [replayStreams]error
	)
	for i := range replayStreams {
		wg.Go(func() { taskIDs[i], errs[i] = fillStream(ctx, store, lifecycle, i, events) })
	}
	wg.Wait()
	return taskIDs[:], errors.Join(errs[:]...)
}

// fillStream makes one of them. Its last event ends the task.
func fillStream(ctx context.Context, store *sqlitestore.Store, lifecycle taskbridge.TaskLifecycle, i, events int) (taskID string, err error) {
	run, err := startRun(ctx, store, lifecycle, fmt.Sprintf("replay-%d", i))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	for range events - 2 { // beside the first and the last
		if err := run.Progress(ctx, progress); err != nil {
			return "", err
		}
	}
	return run.Task().ID, run.Complete(ctx, taskbridge.Completion{})
}

// replay measures how fast one client after the other gets the whole stream.
type replay struct {
	opts    Options
	handler http.Handler
	taskIDs []string
	release func() error
}

func (r *replay) close() error { return r.release() }

func (r *replay) sample(ctx context.Context, _ string) (rate float64, err error) {
	s, err := serve(ctx, r.handler)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	begin, events := time.Now(), 0
	for i := 0; time.Since(begin) < r.opts.Duration && ctx.Err() == nil; i++ {
		path := "/api/v1/tasks/" + r.taskIDs[i%len(r.taskIDs)] + "/events/stream"
		n, err := readStream(ctx, client, "http://"+s.address+path)
		if err != nil {
			return 0, err
		}
		if n != r.opts.Events {
			return 0, fmt.Errorf("a replay had %d events, want %d", n, r.opts.Events)
		}
		events += n
	}
	return float64(events) / time.Since(begin).Seconds(), ctx.Err()
}

// readStream reads to the end and counts the events by their blank lines.
func readStream(ctx context.Context, client *http.Client, url string) (events int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the answer is %s", response.Status)
	}
	buf := make([]byte, 64<<10)
	lastByte := byte(0)
	for {
		n, err := response.Body.Read(buf)
		for _, b := range buf[:n] {
			if b == '\n' && lastByte == '\n' {
				events++
			}
			lastByte = b
		}
		if errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return events, err
		}
	}
}

// scanAndWrite is the ceiling: one scan of the rows, written as the stream's
// bytes as they come, and nothing else.
type scanAndWrite struct{ conn driver.Conn }

func (h *scanAndWrite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	taskID := strings.Split(r.URL.Path, "/")[4]
	if err := h.write(w, taskID); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (h *scanAndWrite) write(w io.Writer, taskID string) (err error) {
	rows, err := h.conn.(driver.QueryerContext).QueryContext(context.Background(),
		"SELECT event_no, type, created_at, attempt, tag, payload FROM events "+
			"WHERE event_no > (SELECT task_no FROM tasks WHERE id = ?1) << 28 AND event_no < (SELECT task_no + 1 FROM tasks WHERE id = ?1) << 28 ORDER BY event_no",
		[]driver.NamedValue{{Ordinal: 1, Value: taskID}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	types := []taskbridge.EventType{1: taskbridge.EventStarted, 2: taskbridge.EventProgress, 6: taskbridge.EventCompleted}
	row := make([]driver.Value, len(rows.Columns()))
	buf := make([]byte, 0, 64<<10)
	for {
		if err := rows.Next(row); errors.Is(err, io.EOF) {
			_, err := w.Write(buf)
			return err
		} else if err != nil {
			return err
		}
		e := taskbridge.Event{
			TaskID: taskID, Sequence: row[0].(int64) & (1<<28 - 1), Type: types[row[1].(int64)],
			CreatedAt: time.UnixMicro(row[2].(int64)), Attempt: row[3].(int64),
			Tag: fmt.Sprintf("%08x", row[4]), Payload: row[5].([]byte),
		}
		buf = append(append(buf, "id: "...), e.ID()...)
		buf = append(buf, "\ndata: "...)
		buf = append(e.AppendEnvelope(buf), "\n\n"...)
		if len(buf) > 60<<10 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
}
