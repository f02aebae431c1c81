package k8sjob

// watcher is on its way.
type watcher struct{}

// newWatcher begins to watch.
func newWatcher(*Executor) *watcher { return &watcher{} }

// close ends it and waits.
func (*watcher) close() {}
