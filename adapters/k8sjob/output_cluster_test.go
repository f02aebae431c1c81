package k8sjob

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/workerapi"
)

// wantProgress checks that the stream is a start, the lines of progress 1 to n of the
// step "progress=n", once each and in order, and a completion.
func (b *bridge) wantProgress(task taskbridge.Task, n int) {
	b.t.Helper()
	stream := b.stream(task)
	if len(stream) != n+2 {
		b.t.Fatalf("the stream has %d events, want %d: %q … %q", len(stream), n+2, stream[:min(3, len(stream))], stream[max(0, len(stream)-3):])
	}
	for i, line := range stream[1 : n+1] {
		if want := fmt.Sprintf(`,"message":"%d"}`, i+1); !strings.HasPrefix(line, "PROGRESS ") || !strings.HasSuffix(line, want) {
			b.t.Fatalf("event %d is %s, want progress with %s", i+2, line, want)
		}
	}
}

// awaitEvents waits until the stream has so many events.
func (b *bridge) awaitEvents(task taskbridge.Task, n int) {
	b.t.Helper()
	until(b.t, fmt.Sprintf("the stream has %d events", n), func() bool {
		events, err := b.store.ReadEvents(b.ctx, task.ID, int64(n-1), 1)
		must(b.t, err)
		return len(events) > 0
	})
}

func TestClusterFaultEachReportIsThereOnceThoughTheAPIServerAndTheKubeletAreKilled(t *testing.T) {
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=5000,4ms", `result={"done":true}`)})
	task := b.create(`{}`)
	b.awaitEvents(task, 500)
	c.kill("kube-apiserver")
	c.start("kube-apiserver")
	b.awaitEvents(task, 2000)
	c.kill("kubelet")
	c.start("kubelet")
	b.wantResult(task, `{"done":true}`)
	b.wantProgress(task, 5000)
}

func TestClusterEachReportIsThereOnceThoughConnectionsAreCut(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	network, client := c.newNetwork()
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=5000,2ms", "result=1"), change: func(o *Options) { o.Client = client }})
	task := b.create(`{}`)
	for n := 500; n < 5000; n += 500 {
		b.awaitEvents(task, n)
		network.cut()
		network.mend()
	}
	b.wantResult(task, "1")
	b.wantProgress(task, 5000)
}

func TestClusterAnotherServerGoesOnReadingWhereOneWasStopped(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := c.newGate()
	b := c.newBridge(bridgeOptions{types: c.newTypes("result=0", "progress=1000,1ms", "get="+g.URL, "print=the rest", "exit=0")})
	task := b.create(`{}`)
	b.awaitEvents(task, 300)
	b.close()
	other := b.another()
	other.awaitEvents(task, 1001)
	g.open()
	other.wantResult(task, "0") // said before the other began to read
	other.wantProgress(task, 1000)
}

func TestClusterTwoServersThatReadTheSameOutputRecordItOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=2000,1ms", "result=1")})
	other := b.another()
	task := b.create(`{}`)
	b.wantResult(task, "1")
	other.wantProgress(task, 2000)
}

func TestClusterPlainLinesAreMessages(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	long := strings.Repeat("y", 40_000)
	types := c.newTypes("print=hello", "sleep=50ms", "stderr=from stderr", "sleep=50ms", "print= ", "print=::taskbridge nonsense", "print="+long, "raw=without an end")
	work := types["work"]
	work.PlainLines = true
	types["work"] = work
	b := c.newBridge(bridgeOptions{types: types})
	task := b.create(`{}`)
	b.wantResult(task, "null")
	got := b.stream(task)
	want := []string{
		"STARTED {}", `MESSAGE {"message":"hello","level":"info"}`, `MESSAGE {"message":"from stderr","level":"info"}`,
		`MESSAGE {"message":"a report of the container was ignored: report must be a JSON object: invalid character 'o' in literal null (expecting 'u')","level":"warning"}`,
		`MESSAGE {"message":"` + long[:20_000] + ` … (cut)","level":"info"}`, `MESSAGE {"message":"without an end","level":"info"}`,
		`COMPLETED {"result":null}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the stream is %.300q, want %.300q", got, want)
	}
}

// The kubelet replaces a log that has grown to 10 MiB when it looks, every 10 s.
func TestClusterOutputThatWasGoneBeforeItWasReadIsTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	before, after := c.newGate(), c.newGate()
	network, client := c.newNetwork()
	b := c.newBridge(bridgeOptions{
		types:  c.newTypes("progress=3", "get="+before.URL, "bytes=15", "sleep=12s", "bytes=15", "sleep=12s", "progress=3", "get="+after.URL, "result=1"),
		change: func(o *Options) { o.Client = client },
	})
	task := b.create(`{}`)
	b.awaitEvents(task, 4)
	network.cut()
	before.open()
	await(t, "the work has said 30 MiB", after.arrived)
	network.mend()
	b.awaitEvents(task, 8)
	after.open()
	b.wantResult(task, "1")
	b.wantStream(task, "STARTED PROGRESS PROGRESS PROGRESS MESSAGE PROGRESS PROGRESS PROGRESS COMPLETED")
	if warning := b.stream(task)[4]; !strings.Contains(warning, "may be missing") || !strings.Contains(warning, `"warning"`) {
		t.Errorf("the warning is %s", warning)
	}
}

func TestClusterMuchOutputIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("progress=2", "bytes=30,500ms", "result=2")})
	task := b.create(`{}`)
	b.wantResult(task, "2")
	if got := b.types(task); got != "STARTED PROGRESS PROGRESS COMPLETED" && got != "STARTED PROGRESS PROGRESS MESSAGE COMPLETED" {
		t.Errorf("the stream is %q", b.stream(task)) // a message: the log was replaced while it was not being read
	}
}

func TestClusterWorkMayReportOverTheWorkerAPI(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var handler atomic.Pointer[http.Handler]
	url := c.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(w, r) }))
	signer, err := workerapi.NewSigner(workerapi.SignerOptions{Keys: [][]byte{bytes.Repeat([]byte("k"), workerapi.MinKeyBytes)}})
	must(t, err)
	types := c.newTypes("print=::taskbridge {\"message\":\"not read\"}", "worker-api=20")
	work := types["work"]
	work.Reports = ReportWorkerAPI
	types["work"] = work
	b := c.newBridge(bridgeOptions{types: types, change: func(o *Options) { o.WorkerURL, o.Tokens = url, signer }})
	service, err := taskbridge.NewWorkerService(b.lifecycle)
	must(t, err)
	api, err := workerapi.NewHandler(workerapi.Options{Service: service, Lifecycle: b.lifecycle, Signer: signer})
	must(t, err)
	handler.Store(&api)
	task := b.create(`{"a":"b"}`)
	b.wantResult(task, `{"a":"b"}`)
	b.wantProgress(task, 20)
}
