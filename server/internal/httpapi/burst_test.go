package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestSubscribingInTheMiddleOfBurstsGivesExactlyTheRest(t *testing.T) {
	bursts(t, 2_000, 15*time.Second)
}

// bursts has clients subscribe by both transports while their tasks report in
// bursts, stop after a random number of events, and go on from their cursor by
// the other one. It ends after that many subscriptions, or when the time is over.
func bursts(t *testing.T, subscriptions int, limit time.Duration) {
	const tasks, clients = 4, 4
	f := serve(t)
	over := time.Now().Add(limit)
	var (
		mu   sync.Mutex
		made int
	)
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		made++
		return made <= subscriptions && time.Now().Before(over)
	}
	var work sync.WaitGroup
	for k := range tasks {
		work.Go(func() {
			random := rand.New(rand.NewPCG(uint64(k), 1))
			for round := 0; more(); round++ {
				task := f.create()
				run := f.start(task)
				var readers sync.WaitGroup
				events := 50 + random.IntN(300)
				for c := range clients {
					seed := rand.New(rand.NewPCG(uint64(k*clients+c), uint64(round)))
					readers.Go(func() { followBothWays(f, task, events+2, seed, more) })
				}
				for i := 0; i < events; {
					for range min(1+random.IntN(40), events-i) {
						f.progress(run, float64(i%100))
						i++
					}
					if random.IntN(3) > 0 { // while others read, or not
						f.expect(http.StatusOK, "GET", "/api/v1/tasks/"+task+"/events?maxEvents=1", "")
					}
				}
				f.complete(run, "1")
				readers.Wait()
			}
		})
	}
	work.Wait()
	t.Logf("%d subscriptions", min(made, subscriptions))
}

// followBothWays follows a stream to its end, changing the transport at random.
func followBothWays(f *fixture, task string, events int, random *rand.Rand, more func() bool) {
	last, next := "", 1
	for next <= events {
		more() // counts this subscription; a stream that was begun is followed to its end
		upTo := next + random.IntN(60)
		if random.IntN(4) == 0 {
			upTo = events
		}
		read, done, err := openEither(f, task, last, random.IntN(2) == 0)
		if err != nil {
			f.Errorf("subscribing after %q: %v", last, err)
			return
		}
		for ; next <= min(upTo, events); next++ {
			id, err := read()
			cursor, malformed := taskbridge.ParseCursor(id)
			if err != nil || malformed != nil || cursor.Sequence != int64(next) {
				f.Errorf("after %q: event %q, %v, want number %d", last, id, err, next)
				done()
				return
			}
			last = id
		}
		done()
	}
}

// openEither subscribes; read returns the next event's id.
func openEither(f *fixture, task, last string, overSocket bool) (read func() (string, error), done func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	if !overSocket {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/api/v1/tasks/"+task+"/events/stream?gap=error&lastEventId="+last, nil)
		if err != nil {
			cancel()
			return nil, nil, err
		}
		response, err := f.client.Do(r)
		if err != nil {
			cancel()
			return nil, nil, err
		}
		done = func() {
			_ = response.Body.Close() // in the middle of it
			cancel()
		}
		if response.StatusCode != http.StatusOK {
			done()
			return nil, nil, errors.New(response.Status)
		}
		return newSSE(f.T, response).eventID, done, nil
	}
	conn, _, err := websocket.Dial(ctx, f.url+"/api/v1/tasks/ws", &websocket.DialOptions{HTTPClient: f.client})
	if err != nil {
		cancel()
		return nil, nil, err
	}
	done = func() {
		_ = conn.CloseNow() // in the middle of it
		cancel()
	}
	cursor, err := json.Marshal(last)
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"action":"subscribe","taskId":%q,"lastEventId":%s,"gap":"error"}`, task, cursor))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return (&socket{f.T, conn, ctx}).eventID, done, nil
}
