package httpapi

import (
	"net"
	"sync"
	"time"
)

// batchConn gathers what is written to it between begin and send, so that many
// frames leave in one write. It knows where each message ends: a connection that
// must be given up is given up between two.
type batchConn struct {
	net.Conn
	early []byte // read before the connection was taken over

	mu       sync.Mutex
	batching bool
	batch    []byte
	ends     []int // of the messages in batch
}

// Read returns what came early first. Only the WebSocket's reader calls it.
func (c *batchConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write gathers, or writes through.
func (c *batchConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batching {
		c.batch = append(c.batch, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// begin starts a batch.
func (c *batchConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batching = true
}

// mark notes that a message is complete.
func (c *batchConn) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, len(c.batch))
}

// send writes the batch. If the peer does not take it in time, rest is what is
// missing of the message that was begun, for a last try.
func (c *batchConn) send(timeout time.Duration) (rest []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	n, err := c.Conn.Write(c.batch)
	if err != nil {
		end := n
		for _, end = range c.ends {
			if end >= n {
				break
			}
		}
		if n > 0 && end > n {
			rest = c.batch[n:end]
		}
		return rest, err // still batching: nothing else goes out in between
	}
	c.batching = false
	c.batch, c.ends = c.batch[:0], c.ends[:0]
	if cap(c.batch) > wsBufferBytes {
		c.batch, c.ends = nil, nil // an idle client needs none
	}
	return nil, nil
}
