package httpapi

import (
	"context"
	"net"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// outlet is a stream on a connection that was taken over. One goroutine at a
// time uses it.
type outlet interface {
	// now writes frames without waiting for anything. false: it could not, or
	// not all; it has kept the rest for catchUp.
	now(frames []taskbridge.Frame, at time.Time) bool
	// catchUp writes all there is, and a heartbeat if idle says that nothing has
	// been written for so long. It waits for the store and for the client. An
	// error ends the stream.
	catchUp(ctx context.Context, idle bool) error
	// end says good-bye and gives back what the stream has.
	end(ctx context.Context, err error)
}

// delivery runs a stream that costs no goroutine while nothing has to be done
// for it. New events are written by the goroutine that tells of them, as long as
// the system takes them at once, which spares a thousand streams a thousand
// goroutines being woken; what may wait is done by a goroutine made for it.
type delivery struct {
	api          *API
	ctx          context.Context // ends when the client has gone or draining begins
	subscription *taskbridge.Subscription
	stream       outlet

	mu      sync.Mutex
	running bool      // somebody has the stream
	again   bool      // there is something to do, said while running
	idle    bool      // a heartbeat is due
	quiet   time.Time // since when nothing has been done; while not running

	// Of the beats, under their lock.
	every time.Duration // between heartbeats
	due   time.Time
	place int
}

// newDelivery makes one, which the draining wakes up. The caller sees to it that
// it is woken when ctx ends otherwise, and starts it.
func (a *API) newDelivery(
	ctx context.Context, conn net.Conn, subscription *taskbridge.Subscription, stream outlet, every time.Duration,
) *delivery {
	d := &delivery{api: a, ctx: ctx, subscription: subscription, stream: stream, every: every, running: true}
	a.live.runs(conn, d)
	return d
}

// start lets the stream run until it has ended.
func (d *delivery) start() {
	d.subscription.Watch(d.changed)
	d.api.beats.add(d)
	go d.run()
}

// take gets the stream for the caller, or has whoever has it look again.
func (d *delivery) take(idle bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = d.idle || idle
	if d.running {
		d.again = true
		return false
	}
	d.running = true
	return true
}

// park gives the stream back, unless there is more to do.
func (d *delivery) park(at time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.again || d.idle || d.ctx.Err() != nil {
		d.again = false
		return false
	}
	d.running, d.quiet = false, at
	return true
}

// wake has the stream look whether it must end.
func (d *delivery) wake() {
	if d.take(false) {
		go d.run()
	}
}

// beat has it write a heartbeat.
func (d *delivery) beat() {
	if d.take(true) {
		go d.run()
	}
}

// changed is called by the subscription.
func (d *delivery) changed() {
	if !d.take(false) {
		return
	}
	at := d.api.opts.Clock.Now()
	if !d.now(at) || !d.park(at) {
		go d.run() // what else there is to do is nothing for this goroutine, a heartbeat say
	}
}

// now writes what there is and reports whether that was all that is to be done.
func (d *delivery) now(at time.Time) bool {
	for d.ctx.Err() == nil {
		frames, ok := d.subscription.Ready()
		switch {
		case !ok:
			return false
		case len(frames) == 0:
			return true
		case !d.stream.now(frames, at):
			return false
		}
	}
	return false
}

func (d *delivery) run() {
	for {
		d.mu.Lock()
		idle := d.idle
		d.idle, d.again = false, false
		d.mu.Unlock()
		if err := d.stream.catchUp(d.ctx, idle); err != nil {
			d.api.beats.remove(d)
			d.subscription.Close()
			d.stream.end(d.ctx, err)
			return // and running it stays
		}
		if d.park(d.api.opts.Clock.Now()) {
			return
		}
	}
}

// quietSince returns since when nothing has been done; running: something is.
func (d *delivery) quietSince() (at time.Time, running bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quiet, d.running
}
