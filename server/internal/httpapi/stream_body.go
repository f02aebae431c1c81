package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// streamBody takes what a stream writes. An error of it means that the client
// has gone or is too slow.
type streamBody interface {
	// write sends the bytes at once, within the write timeout.
	write(p []byte) error
	// end ends the stream in good form.
	end() error
	// cut ends it so that the client can tell that more was to come.
	cut()
}

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
	if len(p) > 0 {
		if _, err := b.w.Write(p); err != nil {
			return err
		}
	}
	// The errors of both steps count: a flush after a failed write may succeed.
	return b.control.Flush()
}

func (b *responseBody) end() error { return nil }

// cut does nothing: the handler panics with [http.ErrAbortHandler].
func (b *responseBody) cut() {}

// chunkedBody writes HTTP/1.1's chunked coding on a connection that was taken
// over. The last chunk is what tells an end from a cut.
type chunkedBody struct {
	conn    net.Conn
	timeout time.Duration
}

func (b *chunkedBody) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	size := make([]byte, 0, 10)
	size = append(strconv.AppendInt(size, int64(len(p)), 16), "\r\n"...)
	return b.send(size, p, []byte("\r\n"))
}

func (b *chunkedBody) send(parts ...[]byte) error {
	if err := b.conn.SetWriteDeadline(time.Now().Add(b.timeout)); err != nil {
		return err
	}
	buffers := net.Buffers(parts)
	_, err := buffers.WriteTo(b.conn) // one write where the connection can
	return err
}

func (b *chunkedBody) end() error {
	if err := b.send([]byte("0\r\n\r\n")); err != nil {
		return err
	}
	return b.conn.Close()
}

func (b *chunkedBody) cut() { _ = b.conn.Close() } // it is given up either way

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
	body := &chunkedBody{conn: conn, timeout: a.opts.WriteTimeout}
	header := c.w.Header()
	header.Set("Date", a.opts.Clock.Now().UTC().Format(http.TimeFormat))
	header.Set("Transfer-Encoding", "chunked")
	header.Set("Connection", "close")
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", http.StatusOK, http.StatusText(http.StatusOK))
	if err := header.Write(&head); err != nil {
		body.cut()
		return nil, err
	}
	head.WriteString("\r\n")
	if rec, ok := c.w.(*recorder); ok {
		rec.status = http.StatusOK
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		body.cut()
		return nil, err
	}
	if err := body.send(head.Bytes()); err != nil {
		body.cut()
		return nil, err
	}
	return body, nil
}

// untilGone returns a context that ends with ctx or when the peer closes the
// connection. What the peer sends is of no interest. The caller calls stop after
// the connection is closed.
func untilGone(ctx context.Context, conn net.Conn) (gone context.Context, stop func()) {
	gone, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		var ignored [16]byte
		for {
			if _, err := conn.Read(ignored[:]); err != nil {
				return
			}
		}
	}()
	return gone, func() {
		cancel()
		<-ended
	}
}

// smallBuffers is a response writer whose connection, taken over, has buffers as
// small as a client's few frames need.
type smallBuffers struct {
	http.ResponseWriter
	conn *batchConn // once it is taken over
}

const wsBufferBytes = 512

func (s *smallBuffers) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s.conn = &batchConn{Conn: conn}
	if n := buffered.Reader.Buffered(); n > 0 { // the client did not wait for the answer
		early, err := buffered.Reader.Peek(n)
		if err != nil {
			_ = conn.Close()
			return nil, nil, err
		}
		s.conn.early = bytes.Clone(early)
	}
	return s.conn, bufio.NewReadWriter(bufio.NewReaderSize(s.conn, wsBufferBytes), bufio.NewWriterSize(s.conn, wsBufferBytes)), nil
}
