package taskbridge

import (
	"container/list"
	"context"
	"slices"
	"sync"
)

// replayCache keeps encoded pages of streams that have subscribers, so that many
// readers who replay the same events cause one read and one encoding. It is
// bounded in bytes; the pages least recently used go first.
type replayCache struct {
	service *TaskSubscriptionService
	limit   int

	mu    sync.Mutex
	bytes int
	// pages are kept by tail and not by task: a tail whose history was replaced
	// is given up, and its pages with it.
	pages  map[*tail]map[int64]*list.Element // of *cachedPage
	recent list.List                         // the latest used first
}

// largePage is from how many bytes on a page that is still to grow is not read as
// a whole again and again.
const largePage = 8 * batchBytes

// pageEvents is how many events make a page: page n has the sequence numbers
// n*pageEvents+1 to (n+1)*pageEvents.
const pageEvents = 256

type cachedPage struct {
	tail   *tail
	number int64

	ready  chan struct{} // closed once the next three are valid
	before Cursor        // the event before the page; zero: there is none
	frames []Frame
	err    error

	bytes int // as counted in the cache; 0 until then; under its mu
}

func newReplayCache(s *TaskSubscriptionService, limit int) *replayCache {
	return &replayCache{service: s, limit: limit, pages: make(map[*tail]map[int64]*list.Element)}
}

// after returns frames that follow the cursor, about limit bytes of them at most;
// none where the page does not have them or not the event that the cursor names:
// then the store has to be asked about this very cursor.
func (c *replayCache) after(ctx context.Context, t *tail, cursor Cursor, limit int) ([]Frame, error) {
	number := cursor.Sequence / pageEvents
	page, err := c.page(ctx, t, number)
	if err != nil || len(page.frames) == 0 {
		return nil, err
	}
	from := int(cursor.Sequence - number*pageEvents) // how many frames of a whole page are behind the cursor
	if page.frames[0].Sequence != number*pageEvents+1 || from >= len(page.frames) {
		return nil, nil
	}
	named := page.before
	if from > 0 {
		named = page.frames[from-1].cursor()
	}
	if cursor.Sequence > 0 && named != cursor {
		return nil, nil
	}
	frames := upTo(page.frames[from:], limit)
	if 2*len(frames) < len(page.frames) {
		// A reader who stands still is to hold no more than this of a large page.
		frames = slices.Clone(frames)
	}
	return frames, nil
}

// upTo returns the first frames that make about limit bytes, at least one.
func upTo(frames []Frame, limit int) []Frame {
	n, size := 0, 0
	for n < len(frames) && (n == 0 || size < limit) {
		size += frames[n].size()
		n++
	}
	return frames[:n:n]
}

// page returns a page, reading it if nobody else does.
func (c *replayCache) page(ctx context.Context, t *tail, number int64) (*cachedPage, error) {
	c.mu.Lock()
	if element, there := c.pages[t][number]; there {
		c.recent.MoveToFront(element)
		page := element.Value.(*cachedPage)
		c.mu.Unlock()
		select {
		case <-page.ready:
			return page, page.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	page := &cachedPage{tail: t, number: number, ready: make(chan struct{})}
	element := c.recent.PushFront(page)
	if c.pages[t] == nil {
		c.pages[t] = make(map[int64]*list.Element)
	}
	c.pages[t][number] = element
	c.mu.Unlock()

	// Others wait for this read: it does not end with the one who caused it.
	whole, err := page.read(c.service)
	page.err = err
	close(page.ready)

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pages[t][number] != element {
		return page, err // forgotten in the meantime
	}
	size := 0
	for _, frame := range page.frames {
		size += frame.size()
	}
	kept := page
	switch {
	case size > c.limit/2, !whole && size > largePage:
		// Too much to be kept, or to be read for each batch that is taken of it:
		// readers go to the store, for as much as they take.
		kept = &cachedPage{tail: t, number: number, ready: page.ready}
		size = frameOverhead
		element.Value = kept
	case !whole:
		c.remove(element)
		return page, err
	}
	kept.bytes = size
	c.bytes += size
	for oldest := c.recent.Back(); c.bytes > c.limit && oldest != nil; {
		element, oldest = oldest, oldest.Prev()
		if element.Value.(*cachedPage).bytes > 0 { // else it is being read
			c.remove(element)
		}
	}
	return page, err
}

func (c *replayCache) remove(element *list.Element) {
	page := element.Value.(*cachedPage)
	c.bytes -= page.bytes
	c.recent.Remove(element)
	delete(c.pages[page.tail], page.number)
	if len(c.pages[page.tail]) == 0 {
		delete(c.pages, page.tail)
	}
}

// forget drops the pages of a tail.
func (c *replayCache) forget(t *tail) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, element := range c.pages[t] {
		c.remove(element)
	}
}

// read fills the page and reports whether it is whole: it begins where it should
// and no event will be added.
func (p *cachedPage) read(s *TaskSubscriptionService) (whole bool, err error) {
	first := p.number*pageEvents + 1
	after, limit := first-1, pageEvents
	if first > 1 {
		after, limit = after-1, limit+1 // the event before, too
	}
	events, err := s.journal.events.ReadEvents(s.life, p.tail.taskID, after, limit)
	if err != nil {
		return false, err
	}
	if first > 1 && len(events) > 0 && events[0].Sequence == first-1 {
		p.before = Cursor{events[0].Sequence, events[0].Tag}
		events = events[1:]
	}
	p.frames = encode(events)
	n := len(p.frames)
	return n > 0 && p.frames[0].Sequence == first && (n == pageEvents || p.frames[n-1].Terminal), nil
}
