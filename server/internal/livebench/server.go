package livebench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/httpapi"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

// ready is what a server says once it can be reached, on one line.
type ready struct {
	Address string `json:"address"`
	Live    string `json:"live"` // the task that the writer reports for
	Done    string `json:"done"` // the task that is finished
}

// command is what a server is told, a line each. It answers each with one line.
type command struct {
	Write int `json:"write,omitempty"` // append that many events, Rate a second
	Rate  int `json:"rate,omitempty"`
	// RSS asks for the resident memory, after a garbage collection.
	RSS bool `json:"rss,omitempty"`
}

type answer struct {
	RSS int64 `json:"rss,omitempty"` // bytes
	// Appends is how long each of the writes took until it was durable, and CPU
	// what the process computed meanwhile.
	Appends []time.Duration `json:"appends,omitempty"`
	CPU     time.Duration   `json:"cpu,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// backend is a server to be measured.
type backend interface {
	http.Handler
	// write appends an event whose message is the text.
	write(text string) error
	close() error
}

// Serve runs a server, "taskbridge" or "bare", until in ends. The finished
// stream has that many events.
func Serve(ctx context.Context, kind, dir string, events int, in io.Reader, out io.Writer) (err error) {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	r := ready{Live: "live", Done: "done"}
	var b backend
	switch kind {
	case "taskbridge":
		b, r.Live, r.Done, err = newBridge(ctx, dir, events)
	case "bare":
		b = newBare(events)
	default:
		err = fmt.Errorf("livebench: there is no server %q", kind)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends when the server is closed
	defer func() {
		err = errors.Join(err, server.Close())
		serving.Wait()
	}()
	r.Address = listener.Addr().String()
	encoder, decoder := json.NewEncoder(out), json.NewDecoder(in)
	if err := encoder.Encode(r); err != nil {
		return err
	}
	for {
		var c command
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		err := obey(b, c, &a)
		if err != nil {
			a.Error = err.Error()
		}
		if err := encoder.Encode(a); err != nil {
			return err
		}
	}
}

func obey(b backend, c command, a *answer) (err error) {
	if c.RSS {
		a.RSS, err = residentBytes()
		return err
	}
	before, err := cpuTime()
	if err != nil {
		return err
	}
	pace := time.NewTicker(time.Second / time.Duration(c.Rate))
	defer pace.Stop()
	for range c.Write {
		<-pace.C
		begin := time.Now()
		if err := b.write(stamp(begin)); err != nil {
			return err
		}
		a.Appends = append(a.Appends, time.Since(begin))
	}
	<-pace.C // the last is delivered, too
	after, err := cpuTime()
	a.CPU = after - before
	return err
}

// stamp is the time as a reader finds it in an event: the two processes are on
// the same machine.
func stamp(at time.Time) string { return fmt.Sprintf("at=%019d;", at.UnixNano()) }

// residentBytes is this process's memory, without what is garbage.
func residentBytes() (int64, error) {
	runtime.GC()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(status))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm is %q", status)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// bridge is the server's own handler over a durable store.
type bridge struct {
	*httpapi.API
	store  *sqlitestore.Store
	bridge *taskbridge.Bridge
	live   taskbridge.Run
}

type idleExecutor struct{}

func (idleExecutor) SubmitTask(context.Context, taskbridge.Task) error { return nil }

func (idleExecutor) RequestCancellation(context.Context, taskbridge.Task, string) error { return nil }

func newBridge(ctx context.Context, dir string, events int) (b *bridge, live, done string, err error) {
	store, err := sqlitestore.Open(ctx, sqlitestore.Options{Dir: dir})
	if err != nil {
		return nil, "", "", err
	}
	b = &bridge{store: store}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	stores := taskbridge.Stores{Tasks: store, Events: store}
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"bench": idleExecutor{}})
	if err != nil {
		return nil, "", "", err
	}
	if b.bridge, err = taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors, Leaser: store}); err != nil {
		return nil, "", "", err
	}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: stores, Limits: taskbridge.Limits{StreamEvents: 1 << 24},
	})
	if err != nil {
		return nil, "", "", err
	}
	me := taskbridge.Principal{Subject: "bench", Scopes: []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite}}
	if b.API, err = httpapi.New(httpapi.Options{Bridge: b.bridge, Authenticator: httpapi.Anyone(me)}); err != nil {
		return nil, "", "", err
	}
	start := func(key string) (taskbridge.Run, error) {
		created, err := b.bridge.Creation.CreateTask(ctx, me, taskbridge.CreateTaskRequest{ClientRequestID: key, TaskType: "bench"})
		if err != nil {
			return nil, err
		}
		return lifecycle.Start(ctx, created.Task.ID, taskbridge.Claim{ID: key})
	}
	if b.live, err = start("live"); err != nil {
		return nil, "", "", err
	}
	finished, err := start("done")
	if err != nil {
		return nil, "", "", err
	}
	for range events - 2 {
		if err == nil {
			err = finished.Progress(ctx, taskbridge.Progress{Percent: 42.5, Stage: "hashing", Message: "file 1234 of 5678"})
		}
	}
	if err == nil {
		err = finished.Complete(ctx, taskbridge.Completion{})
	}
	err = errors.Join(err, finished.Close())
	return b, b.live.Task().ID, finished.Task().ID, err
}

func (b *bridge) write(text string) error {
	return b.live.Message(context.Background(), taskbridge.Message{Text: text})
}

func (b *bridge) close() error {
	var err error
	if b.API != nil {
		b.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = b.Wait(ctx)
	}
	if b.live != nil {
		err = errors.Join(err, b.live.Close())
	}
	if b.bridge != nil {
		b.bridge.Subscription.Close()
	}
	return errors.Join(err, b.store.Close())
}

// bare is the fan-out and nothing else: a handler that writes the same bytes
// from a slice in memory, and waits on a channel for more.
type bare struct {
	mu      sync.Mutex
	stream  []byte
	changed chan struct{}
	done    []byte
	next    int64
}

func newBare(events int) *bare {
	b := &bare{changed: make(chan struct{})}
	for i := range events {
		e := taskbridge.Event{
			TaskID: "002-mwtqyorms5ddvdwhapps26c7bm", Sequence: int64(i + 1), Tag: "0f3b9a52", Type: taskbridge.EventProgress,
			CreatedAt: time.Now(), Attempt: 1, Payload: []byte(`{"progress":42.5,"stage":"hashing","message":"file 1234 of 5678"}`),
		}
		b.done = appendEvent(b.done, e)
	}
	return b
}

func appendEvent(dst []byte, e taskbridge.Event) []byte {
	dst = append(append(dst, "id: "...), e.ID()...)
	dst = append(dst, "\ndata: "...)
	return append(e.AppendEnvelope(dst), "\n\n"...)
}

func (b *bare) write(text string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	b.stream = appendEvent(b.stream, taskbridge.Event{
		TaskID: "002-mwtqyorms5ddvdwhapps26c7bm", Sequence: b.next, Tag: "0f3b9a52", Type: taskbridge.EventMessage,
		CreatedAt: time.Now(), Attempt: 1, Payload: fmt.Appendf(nil, `{"message":%q}`, text),
	})
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

func (b *bare) close() error { return nil }

func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	if strings.Contains(r.URL.Path, "/done/") {
		for rest := b.done; len(rest) > 0; {
			n := min(len(rest), 64<<10)
			if _, err := w.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		return
	}
	b.mu.Lock()
	at := len(b.stream) // what was there before is of no interest
	b.mu.Unlock()
	for first := true; ; first = false {
		b.mu.Lock()
		rest, changed := b.stream[at:], b.changed
		b.mu.Unlock()
		if len(rest) > 0 {
			if _, err := w.Write(rest); err != nil {
				return
			}
			at += len(rest)
		}
		if len(rest) > 0 || first {
			if control.Flush() != nil {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
