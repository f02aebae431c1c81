package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// streamBody takes what a stream writes. An error of it means that the client
// has gone or is too slow: nothing can be written after it.
type streamBody interface {
	// write sends at once, within the write timeout, what follows the first
	// headroom bytes, which it may overwrite. It may append to p.
	write(p []byte) error
	// end ends the stream in good form.
	end() error
	// cut ends it so that the client can tell that more was to come.
	cut()
}

// headroom is what a piece of a stream leaves free in front: a chunk's size.
const headroom = 10

var emptyHeadroom [headroom]byte

// pieces are the buffers in which streams put together what they write. A stream
// has one only while it writes.
var pieces = sync.Pool{New: func() any {
	p := make([]byte, 0, 4<<10)
	return &p
}}

func takePiece() *[]byte { return pieces.Get().(*[]byte) }

func givePiece(p *[]byte) {
	if cap(*p) > 2*livePiece { // for a large event, once
		return
	}
	*p = (*p)[:0]
	pieces.Put(p)
}

// livePiece is about how much a stream writes at once: what a reader that stands
// still makes the server hold.
const livePiece = 32 << 10

// responseBody is the ordinary way: HTTP/1.0, HTTP/2, and writers that have no
// connection to take over.
type responseBody struct {
	api     *API
	w       http.ResponseWriter
	control *http.ResponseController
}

func (b *responseBody) write(p []byte) error {
	if err := b.api.setWriteDeadline(b.w); err != nil {
		return err
	}
	if len(p) > headroom {
		if _, err := b.w.Write(p[headroom:]); err != nil {
			return err
		}
	}
	// The errors of both steps count: a flush after a failed write may succeed.
	if err := b.control.Flush(); err != nil {
		return err
	}
	// HTTP/2 resets a stream whose deadline passes, be it idle.
	return supported(b.control.SetWriteDeadline(time.Time{}))
}

func (b *responseBody) end() error { return nil }

// cut does nothing: the handler panics with [http.ErrAbortHandler].
func (b *responseBody) cut() {}

// chunkedBody writes HTTP/1.1's chunked coding on a connection that was taken
// over. The last chunk is what tells an end from a cut.
type chunkedBody struct {
	api    *API
	conn   net.Conn
	direct *directWriter
	rest   []byte // what now could not write
}

// chunk makes one of what follows the headroom.
func chunk(p []byte) []byte {
	var digits [8]byte
	size := append(strconv.AppendUint(digits[:0], uint64(len(p)-headroom), 16), "\r\n"...)
	start := headroom - len(size)
	copy(p[start:], size)
	return append(p, "\r\n"...)[start:]
}

func (b *chunkedBody) write(p []byte) error {
	if len(p) <= headroom {
		return nil
	}
	return b.send(chunk(p))
}

// now is write without waiting: what it does not write flush does.
func (b *chunkedBody) now(p []byte) bool {
	p = chunk(p)
	n := b.direct.try(p)
	if n == len(p) {
		return true
	}
	b.rest = bytes.Clone(p[n:])
	return false
}

// flush writes what now has left.
func (b *chunkedBody) flush() error {
	rest := b.rest
	b.rest = nil
	return b.send(rest)
}

func (b *chunkedBody) send(p []byte) error {
	if err := b.api.writeSoon(b.conn); err != nil {
		return err
	}
	if _, err := b.conn.Write(p); err != nil {
		return err
	}
	return b.conn.SetWriteDeadline(time.Time{}) // one that has passed keeps now from writing
}

func (b *chunkedBody) end() error {
	if err := b.send([]byte("0\r\n\r\n")); err != nil {
		return err
	}
	return b.conn.Close()
}

func (b *chunkedBody) cut() { abort(b.conn) }

// abort closes a connection without a word. One that is encrypted would wait for
// its client first, to say good-bye: some seconds, if it does not read.
func abort(conn net.Conn) {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		_ = wrapped.NetConn().Close() // it is given up either way
	}
	_ = conn.Close()
}

// takeOver takes an HTTP/1.1 connection over and writes the head of a chunked
// response. nil without an error: this one cannot be taken over.
func (a *API) takeOver(c *call) (*chunkedBody, error) {
	if c.r.ProtoMajor != 1 || c.r.ProtoMinor < 1 || c.r.Method != http.MethodGet {
		return nil, nil
	}
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, supported(err)
	}
	a.live.has(conn)
	body := &chunkedBody{api: a, conn: conn, direct: newDirectWriter(conn)}
	header := c.w.Header()
	header.Set("Date", a.opts.Clock.Now().UTC().Format(http.TimeFormat))
	header.Set("Transfer-Encoding", "chunked")
	header.Set("Connection", "close")
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", http.StatusOK, http.StatusText(http.StatusOK))
	err = header.Write(&head)
	if err == nil {
		head.WriteString("\r\n")
		err = body.send(head.Bytes())
	}
	if err != nil {
		a.live.forget(conn)
		body.cut()
		return nil, err
	}
	if rec, ok := c.w.(*recorder); ok {
		rec.status = http.StatusOK
	}
	return body, nil
}

// whenGone calls gone when the peer closes the connection, or we do, and closes
// the channel then. What the peer sends is of no interest.
func whenGone(conn net.Conn, gone func()) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer gone()
		var ignored [16]byte
		for {
			if _, err := conn.Read(ignored[:]); err != nil {
				return
			}
		}
	}()
	return ended
}

// upgrade is a response writer that writes the head of an upgrade itself, in
// time, on a connection whose buffers are as small as a client's few frames need.
type upgrade struct {
	http.ResponseWriter
	api  *API
	conn *socketConn // once it is taken over
}

// The library's buffers: it reads frames' heads by the first and writes control
// frames, of 127 bytes at most, by the second, each in one write.
const (
	readBuffer  = 64
	writeBuffer = 128
)

// WriteHeader lets the server write the head when the connection is taken over,
// with a deadline: it may have one left from an earlier request.
func (u *upgrade) WriteHeader(status int) {
	if err := u.api.setWriteDeadline(u.ResponseWriter); err != nil {
		u.api.logger.Debug("the connection of an upgrade has gone", "error", err)
	}
	u.ResponseWriter.WriteHeader(status)
}

// Hijack is what the WebSocket library calls.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered()) // the client did not wait for the answer
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	u.conn = newSocketConn(u.api, conn, bytes.Clone(early))
	u.api.live.has(conn)
	return u.conn, bufio.NewReadWriter(bufio.NewReaderSize(u.conn, readBuffer), bufio.NewWriterSize(u.conn, writeBuffer)), nil
}
