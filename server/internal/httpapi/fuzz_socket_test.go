package httpapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Whatever a client sends, what it gets is whole frames and one close frame at
// most, after which nothing comes; the stream ends, and it is no fault of ours.
func FuzzWhatASocketIsSent(f *testing.F) {
	subscribe := []byte(subscribeText("TASK", ""))
	for _, seed := range [][]byte{
		nil, {0}, {0x81}, []byte("GET / HTTP/1.1\r\n\r\n"), []byte(clientText("{}")), []byte(clientText("")),
		subscribe, []byte(subscribeText("nothing", "")), []byte(subscribeText("TASK", "rubbish!")),
		clientFrameOf(opPing, bytes.Repeat([]byte("x"), 125)), clientFrameOf(opPing, bytes.Repeat([]byte("x"), 126)),
		bytes.Repeat(clientFrameOf(opPing, []byte("p")), 1000),
		clientFrameOf(opClose, nil), clientFrameOf(opClose, []byte{3}), clientFrameOf(opClose, []byte{3, 232}), clientFrameOf(opClose, []byte{0, 0}),
		clientFrameOf(opClose, []byte{3, 240, 0xff}), clientFrameOf(0x3, nil), clientFrameOf(0xf, []byte("x")), clientFrameOf(0x2, subscribe),
		clientFrameOf(0x0, []byte("a continuation of nothing")), {0x81, 5, 'p', 'l', 'a', 'i', 'n'}, {0xf1, 0x80, 0, 0, 0, 0},
		{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, {0x81, 0xff, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, '{'},
		{0x01, 0x81, 0, 0, 0, 0, '{', 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x81, 0, 0, 0, 0, '}'}, clientFrameOf(opText, bytes.Repeat([]byte(" "), 20_000)),
	} {
		f.Add(seed, seed)
		f.Add(subscribe, seed)
		f.Add(slices.Concat(subscribe, clientFrameOf(opPing, nil)), seed)
	}
	f.Fuzz(func(t *testing.T, first, then []byte) {
		server := serve(t)
		task := server.create()
		run := server.start(task)
		r := server.rawConn(0)
		r.send("%s", upgradeRequest)
		r.head(http.StatusSwitchingProtocols)
		for _, sent := range [][]byte{first, then} {
			// The length of a frame around the id stays what it was.
			sent = bytes.ReplaceAll(sent, subscribe, []byte(subscribeText(task, "")))
			if _, err := r.conn.Write(sent); err != nil && !gone(err) {
				t.Fatal(err)
			}
			server.progress(run, 1)
		}
		if err := r.conn.CloseWrite(); err != nil && !gone(err) {
			t.Fatal(err)
		}
		for closed := false; ; {
			opcode, payload, err := r.frame()
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || gone(err) {
				break
			}
			must(t, err)
			if closed {
				t.Fatalf("frame %x %q after the close frame", opcode, payload)
			}
			switch opcode {
			case opText, opPing, opPing + 1:
			case opClose:
				if closed = true; len(payload) == 1 || len(payload) > 125 {
					t.Errorf("close frame %q", payload)
				}
				if len(payload) >= 2 {
					if code := binary.BigEndian.Uint16(payload); code == 1011 {
						t.Errorf("closed with %d", code)
					}
				}
			default:
				t.Errorf("frame %x %q", opcode, payload)
			}
		}
		waitGone(server)
		if log := server.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "panic") {
			t.Error(log)
		}
	})
}

// gone reports whether a connection has been closed while something was on its way.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}
