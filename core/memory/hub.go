package memory

import "sync"

// hub holds the watchers of one store by task id. Its zero value is ready.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[*watcher]struct{}
}

// watcher is one registered wake function. Its lock is held while wake runs,
// which is how stop knows that no call is left when it returns.
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

// notify calls the task's watchers. The caller holds no lock of the store.
func (h *hub) notify(taskID string) {
	h.mu.Lock()
	watchers := make([]*watcher, 0, len(h.watchers[taskID]))
	for w := range h.watchers[taskID] {
		watchers = append(watchers, w)
	}
	h.mu.Unlock()
	for _, w := range watchers {
		w.call()
	}
}

func (w *watcher) call() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.wake()
	}
}
