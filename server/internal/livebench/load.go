package livebench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// load is many subscribers. Each does as little as a client can: what is measured
// shares the machine with it.
type load struct {
	clients []*subscriber
}

type subscriber struct {
	conn    net.Conn
	kind    string
	request []byte
	carry   []byte // the end of what was read, where an event may have begun
}

// eventTimeout is how long nothing may come although something should.
const eventTimeout = time.Minute

func dialAll(ctx context.Context, p *process, kind, task string, n int) (*load, error) {
	l := &load{}
	var dialer net.Dialer
	for range n {
		conn, err := dialer.DialContext(ctx, "tcp", p.Address)
		if err != nil {
			l.close()
			return nil, err
		}
		s := &subscriber{conn: conn, kind: kind}
		if kind == "websocket" {
			s.request = []byte("GET /api/v1/tasks/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
			frame := fmt.Sprintf(`{"action":"subscribe","taskId":%q}`, task)
			s.request = append(s.request, 0x81, 0x80|byte(len(frame)), 0, 0, 0, 0) // masked with 0
			s.request = append(s.request, frame...)
		} else {
			s.request = fmt.Appendf(nil, "GET /api/v1/tasks/%s/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", task)
		}
		l.clients = append(l.clients, s)
	}
	return l, nil
}

// subscribe opens live streams and returns once all are live.
func subscribe(ctx context.Context, p *process, kind, task string, n int) (*load, error) {
	l, err := dialAll(ctx, p, kind, task, n)
	if err != nil {
		return nil, err
	}
	live := map[string]string{"bare": "\r\n\r\n", "sse": ": ping\n\n", "websocket": `"TASK_STARTED"`}[kind]
	for _, s := range l.clients {
		if err := s.open(live); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (s *subscriber) open(live string) error {
	if err := s.conn.SetDeadline(time.Now().Add(eventTimeout)); err != nil {
		return err
	}
	if _, err := s.conn.Write(s.request); err != nil {
		return err
	}
	var head []byte
	buf := make([]byte, 4<<10)
	for !bytes.Contains(head, []byte(live)) {
		n, err := s.conn.Read(buf)
		if err != nil {
			return fmt.Errorf("subscribing: %w after %q", err, head)
		}
		head = append(head, buf[:n]...)
	}
	return nil
}

func (l *load) close() {
	for _, s := range l.clients {
		_ = s.conn.Close() // what it was for is over
	}
}

// each runs a function for all subscribers at once.
func (l *load) each(do func(i int, s *subscriber) error) error {
	errs := make([]error, len(l.clients))
	var wg sync.WaitGroup
	for i, s := range l.clients {
		wg.Go(func() { errs[i] = do(i, s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

var stampMark = []byte("at=")

const stampDigits = 19

// latencies reads that many events from each subscriber as they come.
func (l *load) latencies(events int) ([]time.Duration, error) {
	all := make([][]time.Duration, len(l.clients))
	err := l.each(func(i int, s *subscriber) error {
		all[i] = make([]time.Duration, 0, events)
		buf := make([]byte, 4<<10)
		for len(all[i]) < events {
			n, err := s.conn.Read(buf)
			if err != nil {
				return err
			}
			now := time.Now()
			text := append(s.carry, buf[:n]...)
			for {
				_, after, found := bytes.Cut(text, stampMark)
				if !found {
					text = text[max(0, len(text)-len(stampMark)):]
					break
				}
				if len(after) <= stampDigits {
					text = text[len(text)-len(after)-len(stampMark):]
					break
				}
				nanos, err := strconv.ParseInt(string(after[:stampDigits]), 10, 64)
				if err != nil {
					return fmt.Errorf("an event has the time %q", after[:stampDigits])
				}
				all[i] = append(all[i], now.Sub(time.Unix(0, nanos)))
				text = after[stampDigits:]
			}
			s.carry = append(s.carry[:0], text...)
		}
		return nil
	})
	var flat []time.Duration
	for _, one := range all {
		flat = append(flat, one...)
	}
	return flat, err
}

// replay has all subscribers ask at once and read to the end.
func (l *load) replay() error {
	return l.each(func(_ int, s *subscriber) error {
		if err := s.conn.SetDeadline(time.Now().Add(eventTimeout)); err != nil {
			return err
		}
		if _, err := s.conn.Write(s.request); err != nil {
			return err
		}
		buf := make([]byte, 32<<10)
		var last []byte
		for {
			n, err := s.conn.Read(buf)
			last = append(last, buf[:n]...)
			last = last[max(0, len(last)-64):]
			if s.kind == "websocket" {
				if ended(last) {
					return nil
				}
			} else if errors.Is(err, io.EOF) && bytes.HasSuffix(last, []byte("0\r\n\r\n")) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("a replay ends with %q: %w", last, err)
			}
		}
	})
}

// ended reports whether the bytes end with the close frame of a stream that has
// come to its end.
func ended(last []byte) bool {
	const reason = "the task has ended"
	text, ok := bytes.CutSuffix(last, []byte(reason))
	return ok && len(text) >= 4 && text[len(text)-4] == 0x88 && binary.BigEndian.Uint16(text[len(text)-2:]) == 1000
}
