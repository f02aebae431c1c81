//go:build linux

package asynqadapter

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hibiken/asynq"
)

// proxy stands between a client and the tests' Redis, and can come between them.
type proxy struct {
	socket   string
	listener net.Listener
	copies   sync.WaitGroup

	mu     sync.Mutex
	cond   *sync.Cond
	held   bool // what is sent waits
	away   bool // connections are closed at once
	closed bool
	open   map[net.Conn]bool
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	p := &proxy{socket: filepath.Join(t.TempDir(), "proxy.sock"), open: map[net.Conn]bool{}}
	p.cond = sync.NewCond(&p.mu)
	var err error
	p.listener, err = net.Listen("unix", p.socket)
	must(t, err)
	p.copies.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed, p.held = true, false
		p.mu.Unlock()
		p.cond.Broadcast()
		_ = p.listener.Close()
		p.cut()
		p.copies.Wait()
	})
	return p
}

func (p *proxy) option() *asynq.RedisClientOpt {
	o := testRedis
	o.Network, o.Addr = "unix", p.socket
	return &o
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		network := testRedis.Network
		if network == "" {
			network = "tcp"
		}
		server, err := net.Dial(network, testRedis.Addr)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.away || p.closed {
			_ = client.Close()
			_ = server.Close()
			p.mu.Unlock()
			continue
		}
		p.open[client], p.open[server] = true, true
		p.mu.Unlock()
		p.copies.Go(func() { p.copy(server, client, true) })
		p.copies.Go(func() { p.copy(client, server, false) })
	}
}

// copy passes on until one side closes; requests wait while they are held.
func (p *proxy) copy(to, from net.Conn, requests bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
		p.mu.Lock()
		delete(p.open, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for requests && p.held {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold keeps requests back until release.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
}

func (p *proxy) release() {
	p.mu.Lock()
	p.held = false
	p.mu.Unlock()
	p.cond.Broadcast()
}

// vanish closes all connections, and each new one, until comeBack.
func (p *proxy) vanish() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) comeBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for connection := range p.open {
		_ = connection.Close()
	}
}
