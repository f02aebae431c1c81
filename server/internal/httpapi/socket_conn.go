package httpapi

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// socketConn is a WebSocket's connection below the library, which reads from it
// and answers pings and closes. Events go past the library, many frames in one
// write; what the library has to say meanwhile comes after them, and nothing
// comes after our close frame.
type socketConn struct {
	net.Conn
	api    *API
	direct *directWriter
	held   *heldConn   // below it, where it is encrypted; nil: none
	early  []byte      // read before the connection was taken over
	heard  atomic.Bool // something has come from the client

	mu      sync.Mutex
	free    sync.Cond // busy has become false
	busy    bool      // somebody writes
	waiting int       // how many wait for that
	late    []byte    // control frames that came while busy
	rest    []byte    // what is missing of the frame at which a write failed
	broken  bool      // a write has failed
	parted  bool      // our close frame is out, or in late
	closing bool      // closed once late is out
	unsent  []byte    // what sendNow could not write, whole frames
	sent    int       // how much of it has been written
}

// maxLate bounds the answers to the pings of a client that does not read.
const maxLate = 1 << 10

// maxRounds is how often they are written after one write of events.
const maxRounds = 8

func newSocketConn(api *API, conn net.Conn, early []byte) *socketConn {
	c := &socketConn{Conn: conn, api: api, direct: newDirectWriter(conn), held: heldBelow(conn), early: early}
	c.free.L = &c.mu
	return c
}

// Read returns what came early first. Only the WebSocket's reader calls it.
func (c *socketConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

// Write takes a control frame from the library. It does not wait for a write
// that is under way: the library gives up connections whose pongs take long.
func (c *socketConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(p) > 0 && p[0] == final|opClose
	switch {
	case c.parted || c.broken:
	case c.busy || c.waiting > 0 && !last: // a flood of pings must not keep events away
		if len(c.late)+len(p) <= maxLate || last {
			c.late = append(c.late, p...)
			c.parted = last
		}
	default:
		c.busy, c.parted = true, last
		if err := c.put(p, 0); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// send writes whole frames within the write timeout.
func (c *socketConn) send(frames []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own()
	if c.broken || c.parted {
		c.release()
		return net.ErrClosed
	}
	return c.put(frames, 0)
}

// sendNow is send without waiting: what it does not write flush does, which has
// to be called then.
func (c *socketConn) sendNow(frames []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	if !c.busy && !c.broken && !c.parted {
		if n = c.direct.try(frames); n == len(frames) {
			return true
		}
		c.busy = n > 0 // nobody may write into a frame that has been begun
	}
	c.unsent, c.sent = bytes.Clone(frames), n
	return false
}

// flush writes what sendNow has left, within the write timeout.
func (c *socketConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames, sent := c.unsent, c.sent
	c.unsent, c.sent = nil, 0
	if sent == 0 {
		c.own()
	}
	if c.broken || c.parted && sent == 0 {
		c.release()
		return net.ErrClosed
	}
	return c.put(frames, sent)
}

// own waits until nobody writes. The caller has the lock.
func (c *socketConn) own() {
	c.waiting++
	for c.busy {
		c.free.Wait()
	}
	c.waiting--
	c.busy = true
}

func (c *socketConn) release() {
	c.busy = false
	c.free.Signal()
}

// Close closes the connection, after the answer to the client's close frame if
// that is still to go out.
func (c *socketConn) Close() error {
	c.mu.Lock()
	if (c.busy || c.waiting > 0) && len(c.late) > 0 {
		defer c.mu.Unlock()
		c.closing = true
		return c.SetWriteDeadline(time.Now().Add(partingTime))
	}
	c.mu.Unlock()
	// Not under the lock, which whoever tells of events takes: to say good-bye an
	// encrypted connection waits for its client.
	return c.Conn.Close()
}

// put writes frames, of which so much has been sent, and whatever came late, and
// releases the connection. The caller has the lock, which is given up for the
// writes.
func (c *socketConn) put(frames []byte, sent int) error {
	defer func() {
		if c.closing {
			c.mu.Unlock()
			_ = c.Conn.Close() // it is given up either way
			c.mu.Lock()
		}
		c.release()
	}()
	for rounds := 0; len(frames) > 0; rounds++ {
		closing, n := c.closing, 0
		c.mu.Unlock()
		err := c.api.writeSoon(c.Conn)
		if closing {
			err = c.SetWriteDeadline(time.Now().Add(partingTime))
		}
		if err == nil {
			n, err = c.Conn.Write(frames[sent:])
		}
		if err == nil && c.held.isBehind() {
			err = os.ErrDeadlineExceeded // and nothing is missing of the last frame
		}
		c.mu.Lock()
		if err != nil {
			c.broken, c.late = true, nil
			c.rest = append([]byte(nil), restOfFrame(frames, sent+n)...)
			return err
		}
		frames, sent, c.late = c.late, 0, nil
		if rounds >= maxRounds && !c.parted {
			break // a flood; not all pings have to be answered (RFC 6455, 5.5.3)
		}
	}
	return c.SetWriteDeadline(time.Time{}) // one that has passed keeps sendNow from writing
}

// part writes what is missing of the frame that was begun and a close frame: a
// client that did not keep up gets both should it read again. Nothing is written any more after it.
func (c *socketConn) part(code websocket.StatusCode, reason string) error {
	c.mu.Lock()
	c.own()
	last := c.rest
	already, broken := c.parted, c.broken
	c.parted, c.rest, c.late = true, nil, nil
	c.release()
	c.mu.Unlock()
	if already {
		return net.ErrClosed
	}
	if len(reason) > maxCloseReason {
		reason = reason[:maxCloseReason]
	}
	last = append(last, final|opClose, byte(2+len(reason)))
	last = binary.BigEndian.AppendUint16(last, uint16(code))
	last = append(last, reason...)
	if err := c.api.writeSoon(c.Conn); err != nil {
		return err
	}
	if broken {
		setSendBuffer(c.Conn, partingBuffer)
	}
	_, err := c.Conn.Write(last)
	if err == nil && c.held.isBehind() {
		if !broken {
			return os.ErrDeadlineExceeded // the client does not even read this
		}
		return c.held.release()
	}
	return err
}

// Frames as a server sends them: in one piece, not masked (RFC 6455, 5.2).
const (
	final   = 0x80
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
)

// appendText appends a text frame.
func appendText(dst, message []byte) []byte {
	switch n := len(message); {
	case n < 126:
		dst = append(dst, final|opText, byte(n))
	case n < 1<<16:
		dst = append(dst, final|opText, 126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, final|opText, 127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return append(dst, message...)
}

// frameSize returns the size of the frame that begins here.
func frameSize(p []byte) int {
	switch n := int(p[1]); n {
	case 126:
		return 4 + int(binary.BigEndian.Uint16(p[2:]))
	case 127:
		return 10 + int(binary.BigEndian.Uint64(p[2:]))
	default:
		return 2 + n
	}
}

// restOfFrame returns what is missing of a frame of which a part is among the
// first n bytes.
func restOfFrame(frames []byte, n int) []byte {
	for at := 0; at < n; {
		next := at + frameSize(frames[at:])
		if next > n {
			return frames[n:next]
		}
		at = next
	}
	return nil
}
