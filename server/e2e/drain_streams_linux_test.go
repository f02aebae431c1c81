package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const (
	drainTasks   = 4
	drainStreams = 1000 // of each transport
	drainBurst   = 150  // events of a task that come at once
	drainLimit   = 25 * time.Second
	openingMost  = 64 // streams that are being opened at once
)

func TestTwoThousandStreamsAreCutByAShutdownAndResumeWithoutAGap(t *testing.T) {
	raiseFileLimit(t, 2*drainStreams+500)
	dir, c := t.TempDir(), newClient(t)
	args := []string{
		"--task", fmt.Sprintf(`busy=sh -c 'i=0; while [ $i -lt %d ]; do echo "::taskbridge {\"message\":\"$i\"}"; i=$((i+1)); done; `+
			`while :; do echo "::taskbridge {\"message\":\"tick\"}"; sleep 1; done'`, drainBurst),
		"--process-max-running", fmt.Sprint(drainTasks), "--process-grace", "1s",
		"--drain-timeout", drainLimit.String(),
		"--rate-limit-streams", "0", "--rate-limit-total-streams", fmt.Sprint(2 * drainStreams),
	}
	s := launch(t, dir, args...)

	var readers []*drainReader
	for i := range drainTasks {
		task, err := c.create(s.url, fmt.Sprint("busy-", i), "busy", `{}`)
		if err != nil {
			t.Fatal(err)
		}
		for range drainStreams / drainTasks {
			readers = append(readers,
				&drainReader{taskID: task.TaskID, transport: "SSE", follow: c.follow},
				&drainReader{taskID: task.TaskID, transport: "WebSocket", follow: c.followSocket})
		}
	}

	// All are open and have read before the signal; the tasks go on meanwhile.
	reading := followAll(t, s.url, readers, drainBurst/2)
	before := time.Now()
	status := s.terminate()
	if took := time.Since(before); status != 0 || took > drainLimit {
		t.Errorf("exit status %d after %v", status, took)
	}
	reading.Wait()
	cut := func(r *drainReader) bool {
		if r.transport == "SSE" {
			return errors.Is(r.err, io.ErrUnexpectedEOF) // without the last chunk
		}
		return websocket.CloseStatus(r.err) == websocket.StatusGoingAway
	}
	checkEnds(t, readers, "cut", cut)
	for _, unwanted := range []string{"level=ERROR", "level=WARN", "DATA RACE"} {
		if strings.Contains(s.log.String(), unwanted) {
			t.Errorf("%s in the log of a shutdown in good order", unwanted)
		}
	}
	if t.Failed() {
		t.FailNow()
	}

	// All come back, every other one as a client does that stores its cursor now
	// and then: with an older one.
	for i, r := range readers {
		if i%4 >= 2 {
			r.seen = r.seen[:1+i%len(r.seen)]
		}
	}
	s = launch(t, dir, args...)
	followAll(t, s.url, readers, 1).Wait()
	ended := func(r *drainReader) bool {
		return r.transport == "SSE" && r.err == nil || websocket.CloseStatus(r.err) == websocket.StatusNormalClosure
	}
	checkEnds(t, readers, "ended", ended)
	streams := map[string][]seenEvent{}
	for _, r := range readers {
		want, known := streams[r.taskID]
		if !known {
			want = drainedStream(t, c, s.url, r.taskID)
			streams[r.taskID] = want
		}
		for i := range max(len(want), len(r.seen)) {
			if i >= len(r.seen) || i >= len(want) || r.seen[i] != want[i] {
				t.Errorf("a %s of %s: %d events, the stream has %d; event %d differs", r.transport, r.taskID, len(r.seen), len(want), i+1)
				break
			}
		}
	}
	if status := s.terminate(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// checkEnds tells how many readers' last connections were not ended as wanted,
// and of the first of them.
func checkEnds(t *testing.T, readers []*drainReader, want string, as func(*drainReader) bool) {
	t.Helper()
	wrong := 0
	for _, r := range readers {
		if as(r) {
			continue
		}
		if wrong++; wrong <= 4 {
			t.Errorf("a %s of %s was not %s: %v", r.transport, r.taskID, want, r.err)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d were not %s", wrong, len(readers), want)
	}
}

// drainedStream returns what a reader of a task that ran when the server was
// shut down must have seen.
func drainedStream(t *testing.T, c *client, url, taskID string) (seen []seenEvent) {
	t.Helper()
	all, err := c.events(url, taskID)
	if err != nil {
		t.Fatal(err)
	}
	checkStream(t, taskID, all)
	if len(all) < drainBurst {
		t.Errorf("the stream of %s has %d events", taskID, len(all))
	}
	final, err := c.task(url, taskID)
	if err != nil || final.Status != "FAILED" || final.Failure == nil || final.Failure.Code != "EXECUTOR_LOST" || !final.Failure.Retryable {
		t.Errorf("row %+v, %v", final, err)
	}
	for _, e := range all {
		seen = append(seen, e.seen())
	}
	return seen
}

// seenEvent is what a reader keeps of an event: enough to tell it from any other.
type seenEvent struct {
	id   string
	hash uint64
}

var seenSeed = maphash.MakeSeed()

func (e event) seen() seenEvent { return seenEvent{e.EventID, maphash.String(seenSeed, e.raw)} }

// drainReader is a client of one stream, over as many connections as it takes.
type drainReader struct {
	taskID    string
	transport string
	follow    func(ctx context.Context, url, taskID, cursor string, each func(event)) error
	seen      []seenEvent // of all connections
	err       error       // how the last connection has ended
}

// followAll lets all readers read, each from where it is. It returns once each
// has read the given number of events, or has ended; the group's Wait returns
// when all have ended.
func followAll(t *testing.T, url string, readers []*drainReader, events int) *sync.WaitGroup {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	var running, reading sync.WaitGroup
	opening := make(chan struct{}, openingMost)
	for _, r := range readers {
		opening <- struct{}{}
		opened := sync.OnceFunc(func() { <-opening })
		reading.Add(1)
		underWay := sync.OnceFunc(reading.Done)
		running.Go(func() {
			defer opened()
			defer underWay()
			cursor := ""
			if len(r.seen) > 0 {
				cursor = r.seen[len(r.seen)-1].id
			}
			n := 0
			r.err = r.follow(ctx, url, r.taskID, cursor, func(e event) {
				opened()
				r.seen = append(r.seen, e.seen())
				if n++; n == events {
					underWay()
				}
			})
		})
	}
	reading.Wait()
	return &running
}

// followSocket is follow over a WebSocket. It returns how the connection ended,
// always an error.
func (c *client) followSocket(ctx context.Context, url, taskID, cursor string, each func(event)) error {
	conn, _, err := websocket.Dial(ctx, url+"/api/v1/tasks/ws", &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }() // it has ended either way
	subscribe, err := json.Marshal(map[string]string{"action": "subscribe", "taskId": taskID, "lastEventId": cursor, "gap": "error"})
	if err != nil {
		return err
	}
	if err := conn.Write(ctx, websocket.MessageText, subscribe); err != nil {
		return err
	}
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		e, err := decodeEvent(message)
		if err != nil {
			return err
		}
		if e.Type != "SUBSCRIPTION_CONFIRMED" && e.Type != "HEARTBEAT" {
			each(e)
		}
	}
}

// raiseFileLimit lets this process have so many files open. The server raises its
// own limit as far as it may, as every Go program does.
func raiseFileLimit(t *testing.T, files uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < files {
		t.Fatalf("this test needs %d open files, and no more than %d are allowed: raise the hard limit (ulimit -Hn)", files, limit.Max)
	}
	limit.Cur = max(limit.Cur, files)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}
