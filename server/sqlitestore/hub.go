package sqlitestore

import "sync"

// hub holds the watchers of rows, or of streams, by task id. Its zero value is
// ready.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[*watcher]struct{}
}

// watcher is one registered wake function. Its lock is held while wake runs, so
// that stop knows when no call is left.
type watcher struct {
	mu      sync.Mutex
	stopped bool
	wake    func()
}

func (h *hub) watch(taskID string, wake func()) (stop func()) {
	w := &watcher{wake: wake}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = make(map[string]map[*watcher]struct{})
	}
	if h.watchers[taskID] == nil {
		h.watchers[taskID] = make(map[*watcher]struct{})
	}
	h.watchers[taskID][w] = struct{}{}
	return func() {
		h.remove(taskID, w)
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
	}
}

func (h *hub) remove(taskID string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers[taskID], w)
	if len(h.watchers[taskID]) == 0 {
		delete(h.watchers, taskID)
	}
}

// notify calls the task's watchers. It holds no lock of the hub meanwhile, so
// that who registers a watcher never waits for another's wake.
func (h *hub) notify(taskID string) {
	for _, w := range h.of(taskID) {
		w.call()
	}
}

func (h *hub) of(taskID string) []*watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := h.watchers[taskID]
	if len(found) == 0 {
		return nil
	}
	watchers := make([]*watcher, 0, len(found))
	for w := range found {
		watchers = append(watchers, w)
	}
	return watchers
}

func (w *watcher) call() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.wake()
	}
}
