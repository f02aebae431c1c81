package httpapi

import (
	"container/heap"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// beats has all deliveries of an API write a heartbeat when they have been quiet
// for long. One goroutine and one timer do for all, and an event costs neither:
// only when a delivery's time has come is it asked whether it was quiet meanwhile.
type beats struct {
	clock taskbridge.Clock
	began func() // of the goroutine, which exists while there are deliveries
	ended func()

	mu      sync.Mutex
	waiting byDue
	running bool
	earlier chan struct{} // the first has changed, or there is none any more
}

func newBeats(clock taskbridge.Clock, began, ended func()) *beats {
	return &beats{clock: clock, began: began, ended: ended, earlier: make(chan struct{}, 1)}
}

func (b *beats) add(d *delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.due = b.clock.Now().Add(d.every)
	heap.Push(&b.waiting, d)
	switch {
	case !b.running:
		b.running = true
		b.began()
		go b.run()
	case d.place == 0:
		b.look()
	}
}

func (b *beats) remove(d *delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	heap.Remove(&b.waiting, d.place)
	if len(b.waiting) == 0 {
		b.waiting = nil // it may have been large
		b.look()
	}
}

func (b *beats) look() {
	select {
	case b.earlier <- struct{}{}:
	default: // it will
	}
}

func (b *beats) run() {
	defer b.ended()
	for {
		wait, over := b.next()
		if over {
			return
		}
		timer := b.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-b.earlier:
			timer.Stop()
		}
	}
}

// next sees to those whose time has come and returns how long the next has.
func (b *beats) next() (wait time.Duration, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	for len(b.waiting) > 0 {
		d := b.waiting[0]
		if wait := d.due.Sub(now); wait > 0 {
			return wait, false
		}
		quiet, running := d.quietSince()
		switch due := quiet.Add(d.every); {
		case running: // what it does now is later than the last thing that it did
			d.due = now.Add(d.every)
		case due.After(now):
			d.due = due
		default:
			d.beat()
			d.due = now.Add(d.every)
		}
		heap.Fix(&b.waiting, 0)
	}
	b.running = false
	return 0, true
}

// byDue is a heap.
type byDue []*delivery

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is [heap.Interface]'s.
func (h *byDue) Push(d any) {
	d.(*delivery).place = len(*h)
	*h = append(*h, d.(*delivery))
}

// Pop is [heap.Interface]'s.
func (h *byDue) Pop() any {
	n := len(*h) - 1
	d := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	return d
}
