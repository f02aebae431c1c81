package podlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var created = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// entry is a line in the file that the runtime writes.
type entry struct {
	at   time.Time
	text string
}

// node is an API server and a kubelet with one pod, whose container writes a line
// whenever somebody waits for one.
type node struct {
	server *httptest.Server
	client kubernetes.Interface

	mu      sync.Mutex
	random  *rand.Rand
	entries []entry  // all that the container will say
	lines   []string // the same, as the API has it
	written int
	file    int // the first entry of the current file
	lag     int // how often the pod is seen running once it has ended
	asked   int // requests for the log
	looked  int // requests for the pod
	deleted bool
	// vanishes: the pod is deleted, and its log with it, once that was read to its
	// end by a follower and the pod was looked at so often since.
	vanishes bool
	looks    int
	read     bool   // to its end, by a follower
	remnant  string // what the container says last, without a line end

	// skip: after the first of these lines the file is replaced twice while nobody
	// reads, so that the second is next.
	skip [2]int
	// hangs: how many requests that follow hang once all is sent, until the reader
	// goes.
	hangs int
	// refused: the log of a container that has ended is not to be had.
	refused bool
	uid     types.UID
	// away, if there is one, answers in the API server's place.
	away http.HandlerFunc

	// burst is how many lines are written at once, at most.
	burst int
	// fault is asked before a request for the log is served, and after each burst:
	// how it goes wrong.
	fault func(random *rand.Rand) fault
	// rotate is asked after each burst: the file is replaced.
	rotate func(random *rand.Rand) bool
}

// fault is what may happen to a request.
type fault int

const (
	none      fault = iota
	reset           // the connection is
	ends            // the response does, as if it were whole
	cutInLine       // the same within a line
	says500
	saysText // the kubelet writes why it cannot go on
	restarts // the container is said to be starting
)

func newNode(t testing.TB, seed uint64, entries []entry) *node {
	n := &node{
		random: rand.New(rand.NewPCG(seed, 1)), entries: entries, burst: 400, uid: "uid",
		fault:  func(*rand.Rand) fault { return none },
		rotate: func(*rand.Rand) bool { return false },
	}
	for _, e := range entries {
		n.lines = append(n.lines, e.at.Format("2006-01-02T15:04:05.000000000Z07:00 ")+e.text+"\n")
	}
	n.server = httptest.NewServer(n)
	var err error
	n.client, err = kubernetes.NewForConfig(&rest.Config{Host: n.server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.server.CloseClientConnections()
		n.server.Close()
	})
	return n
}

func (n *node) source() Source {
	return Source{Client: n.client, Namespace: "ns", Pod: "p", UID: "uid", Container: "work", Created: created}
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case n.away != nil:
		n.away(w, r)
	case strings.HasSuffix(r.URL.Path, "/pods/p"):
		n.servePod(w)
	case strings.HasSuffix(r.URL.Path, "/pods/p/log"):
		n.serveLog(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (n *node) servePod(w http.ResponseWriter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looked++
	n.vanish()
	if n.deleted {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	if n.read {
		n.looks--
	}
	status := corev1.ContainerStatus{Name: "work", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	if n.written == len(n.entries) {
		if n.lag--; n.lag < 0 {
			status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: n.uid},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status}},
	})
}

// vanish deletes the pod if that is due.
func (n *node) vanish() {
	n.deleted = n.deleted || n.vanishes && n.read && n.looks <= 0
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Reason: reason, Code: int32(code), Message: "so it is",
	})
}

// serveLog does as the kubelet: it reads the current file from its beginning, leaves
// out what is older than sinceTime, and goes on with the next file where it follows.
func (n *node) serveLog(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	query := r.URL.Query()
	if query.Get("timestamps") != "true" || query.Get("container") != "work" {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	var since time.Time
	if text := query.Get("sinceTime"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil { // whole seconds, as the API has it
			refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
			return
		}
	}
	follow := query.Get("follow") == "true"
	if n.vanish(); n.deleted && n.vanishes {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	if n.refused && !follow {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		return
	}
	switch n.fault(n.random) {
	case says500:
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		return
	case restarts:
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	for next := n.file; ; {
		var out bytes.Buffer
		for ; next < n.written; next++ {
			if n.skip[1] > 0 && next == n.skip[0] {
				next, n.file, n.written = n.skip[1], n.skip[1], max(n.written, n.skip[1]+1)
				n.skip = [2]int{}
			}
			if e := n.entries[next]; !e.at.Before(since) {
				out.WriteString(n.lines[next])
			}
		}
		switch n.fault(n.random) {
		case reset:
			_, _ = w.Write(out.Bytes()[:n.random.IntN(out.Len()+1)])
			panic(http.ErrAbortHandler)
		case ends:
			return
		case cutInLine:
			_, _ = w.Write(out.Bytes()[:n.random.IntN(out.Len()+1)])
			return
		case saysText:
			_, _ = w.Write(out.Bytes())
			_, _ = w.Write([]byte("failed to create fsnotify watcher: too many open files"))
			return
		}
		_, _ = w.Write(out.Bytes())
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		if follow && n.written == len(n.entries) && n.hangs > 0 {
			n.hangs--
			n.mu.Unlock()
			<-r.Context().Done()
			n.mu.Lock()
			return
		}
		n.read = follow && n.written == len(n.entries)
		if !follow || n.written == len(n.entries) {
			if n.written == len(n.entries) {
				_, _ = w.Write([]byte(n.remnant))
			}
			return
		}
		n.written = min(len(n.entries), n.written+1+n.random.IntN(n.burst))
		if n.rotate(n.random) {
			n.file = n.written - n.random.IntN(min(n.written, 50))
		}
	}
}

// progress makes n lines. step says how much later than the one before each is.
func progress(n int, step func(i int) time.Duration) []entry {
	entries := make([]entry, n)
	at := created.Add(3 * time.Second)
	for i := range entries {
		at = at.Add(step(i))
		entries[i] = entry{at, fmt.Sprintf("line %d", i)}
	}
	return entries
}

// read follows the log with short pauses and returns its lines.
func read(t testing.TB, n *node, opts Options) ([]Line, End) {
	t.Helper()
	if opts.RetryFirst == 0 {
		opts.RetryFirst, opts.RetryMost = 10*time.Microsecond, 100*time.Microsecond
	}
	var lines []Line
	end, err := Follow(t.Context(), n.source(), opts, func(l Line) error {
		l.Text = bytes.Clone(l.Text)
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, end
}
