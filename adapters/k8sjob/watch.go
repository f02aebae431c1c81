package k8sjob

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// watcher keeps the levels of Jobs, pods and warnings of all namespaces, and has a
// term reconcile what changes, while there is one. It is made with the executor and
// lives as long.
type watcher struct {
	*Executor
	follow func(ctx context.Context, pod *corev1.Pod, container string, options TypeOptions, run taskbridge.NumberedRun) (said, error)

	namespaces map[string]*watched
	queue      workqueue.TypedRateLimitingInterface[string] // of Jobs, as namespace/name

	stopWork func()         // ends the leading, and with it all that acts
	leading  sync.WaitGroup // the leading
	stop     func()         // ends the watching
	working  sync.WaitGroup // informers and workers

	mu      sync.Mutex
	current *term // nil: another process leads
}

// watched are the caches of one namespace.
type watched struct {
	jobs, pods, warnings cache.SharedIndexInformer
	synced               func() bool
}

const (
	// byJob is the index of pods and warnings by the UID of their Job.
	byJob = "job"
	// workers is how many Jobs are reconciled at once: a step of one may wait for the
	// store or the API server.
	workers = 16
	// retryMin and retryMax bound the pauses between tries of a step that fails.
	retryMin, retryMax = 50 * time.Millisecond, 30 * time.Second
)

// newWatcher begins to watch, and to lead or to ask for it.
func newWatcher(e *Executor) *watcher { return startWatcher(e, e.follow) }

func startWatcher(e *Executor, follow func(context.Context, *corev1.Pod, string, TypeOptions, taskbridge.NumberedRun) (said, error)) *watcher {
	w := &watcher{
		Executor: e, follow: follow,
		namespaces: map[string]*watched{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
	}
	ctx, stop := context.WithCancel(w.logging(context.Background()))
	w.stop = stop
	for _, options := range e.Types {
		if w.namespaces[options.Namespace] == nil {
			w.namespaces[options.Namespace] = w.newWatched(options.Namespace)
		}
	}
	for namespace, n := range w.namespaces {
		for _, informer := range []cache.SharedIndexInformer{n.jobs, n.pods, n.warnings} {
			w.working.Go(func() { informer.RunWithContext(ctx) })
		}
		w.working.Go(func() {
			if cache.WaitForCacheSync(ctx.Done(), n.synced) {
				w.enqueueAll(namespace)
			}
		})
	}
	for range workers {
		w.working.Go(w.work)
	}
	acting, stopWork := context.WithCancel(ctx)
	w.stopWork = stopWork
	w.leading.Go(func() { w.lead(acting) })
	return w
}

// close ends all of it and waits. What was begun is gone on with by whoever watches
// next.
func (w *watcher) close() {
	w.stopWork()
	w.leading.Wait()
	w.stop()
	w.queue.ShutDown()
	w.working.Wait()
}

// newWatched makes the caches of a namespace. Jobs whose end is recorded are not in
// them.
func (w *watcher) newWatched(namespace string) *watched {
	selector := watchSelector(w.Instance)
	jobs, pods, events := w.Client.BatchV1().Jobs(namespace), w.Client.CoreV1().Pods(namespace), w.Client.CoreV1().Events(namespace)
	ofJob := cache.Indexers{byJob: func(object any) ([]string, error) {
		switch level := object.(type) {
		case *podLevel:
			return []string{string(level.jobUID)}, nil
		case *eventLevel:
			return []string{string(level.jobUID)}, nil
		}
		return nil, nil
	}}
	n := &watched{
		jobs: newInformer(w, &batchv1.Job{}, jobs, metav1.ListOptions{LabelSelector: selector + ",!" + labelRecorded}, nil),
		pods: newInformer(w, &corev1.Pod{}, pods, metav1.ListOptions{LabelSelector: selector}, ofJob),
		warnings: newInformer(w, &corev1.Event{}, events, metav1.ListOptions{
			FieldSelector: "type=Warning,reason=FailedCreate,involvedObject.kind=Job",
		}, ofJob),
	}
	// Without warnings a quota is not told; that holds up nothing.
	n.synced = func() bool { return n.jobs.HasSynced() && n.pods.HasSynced() }
	return n
}

// listWatcher is what the typed clients have in common.
type listWatcher[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

func newInformer[L runtime.Object](w *watcher, example runtime.Object, client listWatcher[L], which metav1.ListOptions, indexers cache.Indexers) cache.SharedIndexInformer {
	selected := func(options metav1.ListOptions) metav1.ListOptions {
		options.LabelSelector, options.FieldSelector = which.LabelSelector, which.FieldSelector
		return options
	}
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, selected(options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, selected(options))
		},
	}, w.Client)
	informer := cache.NewSharedIndexInformer(source, example, 0, indexers)
	// Neither of these fails before the informer runs.
	never(informer.SetTransform(w.level))
	never(informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil {
			w.Logger.Warn("watching the cluster failed, trying again", "of", kindOf(example), "error", err)
		}
	}))
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.changed,
		UpdateFunc: func(_, now any) { w.changed(now) },
		DeleteFunc: w.removed,
	})
	never(err)
	return informer
}

// never is for errors that the calls above it cannot have.
func never(err error) {
	if err != nil {
		panic(err)
	}
}

func kindOf(example runtime.Object) string {
	switch example.(type) {
	case *batchv1.Job:
		return "jobs"
	case *corev1.Pod:
		return "pods"
	}
	return "events"
}

// level is what a cache keeps of an object. Informers may apply it twice.
func (w *watcher) level(object any) (any, error) {
	switch o := object.(type) {
	case *batchv1.Job:
		return levelOfJob(o), nil
	case *corev1.Pod:
		return levelOfPod(o, w.Types), nil
	case *corev1.Event:
		return levelOfEvent(o), nil
	}
	return object, nil
}

// keyOf is the key of the Job that a level belongs to, "" if it is nobody's.
func keyOf(level any) string {
	switch l := level.(type) {
	case *jobLevel:
		return l.key()
	case *podLevel:
		if l.jobName != "" {
			return l.namespace + "/" + l.jobName
		}
	case *eventLevel:
		return l.namespace + "/" + l.jobName
	}
	return ""
}

// changed has the Job of a level reconciled.
func (w *watcher) changed(level any) {
	if event, is := level.(*eventLevel); is && w.job(keyOf(event)) == nil {
		return // somebody else's, mostly
	}
	if key := keyOf(level); key != "" {
		w.queue.Add(key)
	}
}

// removed keeps what was last seen of an object that has left its cache.
func (w *watcher) removed(object any) {
	if unknown, is := object.(cache.DeletedFinalStateUnknown); is {
		object = unknown.Obj
	}
	t, key := w.term(), keyOf(object)
	if t == nil || key == "" {
		return // a leader takes the caches as they are
	}
	switch level := object.(type) {
	case *jobLevel:
		t.jobRemoved(level)
	case *podLevel:
		t.podRemoved(level, w.job(key) != nil)
	}
	w.queue.Add(key)
}

// job is the Job as its cache has it, nil: it is not there.
func (w *watcher) job(key string) *jobLevel {
	namespace, _, _ := strings.Cut(key, "/")
	n := w.namespaces[namespace]
	if n == nil {
		return nil
	}
	object, there, err := n.jobs.GetIndexer().GetByKey(key)
	if err != nil || !there {
		return nil
	}
	return object.(*jobLevel)
}

// pods are the pods of a Job that the cache has, in no order.
func (w *watcher) pods(job *jobLevel) []*podLevel {
	objects, err := w.namespaces[job.namespace].pods.GetIndexer().ByIndex(byJob, string(job.uid))
	never(err) // there is the index
	pods := make([]*podLevel, 0, len(objects))
	for _, object := range objects {
		pods = append(pods, object.(*podLevel))
	}
	return pods
}

// warning is the last warning about the Job, nil: there is none.
func (w *watcher) warning(job *jobLevel) *eventLevel {
	objects, err := w.namespaces[job.namespace].warnings.GetIndexer().ByIndex(byJob, string(job.uid))
	never(err)
	var last *eventLevel
	for _, object := range objects {
		if event := object.(*eventLevel); last == nil || event.last > last.last {
			last = event
		}
	}
	return last
}

// enqueueAll has all Jobs of a namespace reconciled, if its caches are there.
func (w *watcher) enqueueAll(namespace string) {
	n := w.namespaces[namespace]
	if !n.synced() {
		return
	}
	for _, key := range n.jobs.GetIndexer().ListKeys() {
		w.queue.Add(key)
	}
}

// work reconciles Jobs until the queue is shut down.
func (w *watcher) work() {
	for {
		key, over := w.queue.Get()
		if over {
			return
		}
		w.reconcile(key)
		w.queue.Done(key)
	}
}

// reconcile has the term look at the Job, if there is one. What fails is tried again.
func (w *watcher) reconcile(key string) {
	namespace, _, _ := strings.Cut(key, "/")
	n := w.namespaces[namespace]
	t := w.enter()
	if t == nil {
		w.queue.Forget(key)
		return // all will be looked at when there is one
	}
	defer t.acting.Done()
	if n == nil || !n.synced() {
		return // as when they are
	}
	err := t.reconcile(key)
	switch {
	case err == nil:
		w.queue.Forget(key)
	case t.ctx.Err() != nil:
		w.queue.Forget(key)
	default:
		level := w.Logger.Warn
		if errors.Is(err, taskbridge.ErrInvalidArgument) {
			level = w.Logger.Error // it will not pass by itself
		}
		level("a Job was not reconciled, trying again", "job", key, "error", err)
		w.queue.AddRateLimited(key)
	}
}
