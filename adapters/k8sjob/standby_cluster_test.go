package k8sjob

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskbridge/taskbridge/core/memory"
)

// standbyProcess is another server's process.
type standbyProcess struct {
	command *exec.Cmd
	input   io.Closer
	log     *logBuffer
	exited  chan struct{}
	err     error
}

// startStandby starts one over the stores.
func (c *cluster) startStandby(store *memory.Store, template []byte, election Election) *standbyProcess {
	c.t.Helper()
	dir, err := os.MkdirTemp("", "standby") // short enough for a socket
	must(c.t, err)
	told, err := json.Marshal(standby{c.serveStore(store, dir), c.namespace, template, election})
	must(c.t, err)
	p := &standbyProcess{command: exec.Command(os.Args[0]), log: &logBuffer{}, exited: make(chan struct{})}
	p.command.Env = append(os.Environ(), envStandby+"=1")
	p.command.Stderr = p.log
	input, err := p.command.StdinPipe()
	must(c.t, err)
	p.input = input
	must(c.t, p.command.Start())
	go func() {
		p.err = p.command.Wait()
		close(p.exited)
	}()
	c.t.Cleanup(func() {
		_ = p.command.Process.Kill() // it has ended, if all went well
		<-p.exited
		if c.t.Failed() {
			c.t.Logf("log of the standby:\n%s", p.log)
		}
		must(c.t, os.RemoveAll(dir))
	})
	_, err = input.Write(told)
	must(c.t, err)
	return p
}

// signal sends it one.
func (p *standbyProcess) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	must(t, p.command.Process.Signal(signal))
}

// said waits until it has logged the text.
func (p *standbyProcess) said(t *testing.T, text string) {
	t.Helper()
	until(t, "the standby says: "+text, func() bool { return strings.Contains(p.log.String(), text) })
}

// holder is who has the lease, and since when.
func (c *cluster) holder(name string) (identity string, since time.Time) {
	c.t.Helper()
	lease, err := c.client.CoordinationV1().Leases(c.namespace).Get(c.ctx, name, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || lease.Spec.AcquireTime == nil {
		return "", time.Time{}
	}
	return *lease.Spec.HolderIdentity, lease.Spec.AcquireTime.Time
}

func TestClusterALeaderThatFreezesIsFollowedAndDoesNoHarmWhenItThaws(t *testing.T) {
	t.Parallel()
	const lines = 800
	c := newCluster(t)
	first, second := c.newGate(), c.newGate()
	election := Election{Namespace: c.namespace, Name: defaultInstance, LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: time.Second}
	template := c.template([]string{"progress=800,2ms", "get=" + first.URL, "progress=800,1ms", "get=" + second.URL, "result=1"}, nil)
	store := memory.NewStore(memory.Options{})
	t.Cleanup(func() { must(t, store.Close()) })

	election.Identity = "freezes"
	frozen := c.startStandby(store, template, election)
	frozen.said(t, "this process leads")
	b := c.newBridge(bridgeOptions{types: map[string]TypeOptions{"work": {Template: template}}, store: store, change: func(o *Options) {
		o.Election = &election
		o.Election.Identity = "follows"
	}})
	task := b.create("")
	b.awaitEvents(task, lines/4)
	if b.executor.watcher.term() != nil {
		t.Error("both lead")
	}
	frozen.signal(t, syscall.SIGSTOP)
	stopped := time.Now()
	until(t, "the other one leads", func() bool { return b.executor.watcher.term() != nil })
	identity, since := c.holder(election.Name)
	if identity != "follows" {
		t.Errorf("the lease is that of %q", identity)
	}
	t.Logf("the other one leads %s after the leader froze, by a lease of %s", since.Sub(stopped).Round(time.Millisecond), election.LeaseDuration)
	b.awaitEvents(task, 1+lines)

	// It goes on where it was, with what it had read, while the other one reads on.
	frozen.signal(t, syscall.SIGCONT)
	first.open()
	frozen.said(t, "this process does not lead any more")
	b.awaitEvents(task, 1+2*lines)
	second.open()
	b.wantResult(task, "1")
	b.wantStream(task, "STARTED"+strings.Repeat(" PROGRESS", 2*lines)+" COMPLETED")
	stream := b.stream(task)
	wantCounted(t, stream[1:1+lines])
	wantCounted(t, stream[1+lines:1+2*lines])
	b.wantMarked(task)
	if identity, _ := c.holder(election.Name); identity != "follows" {
		t.Errorf("the lease is that of %q", identity)
	}
	jobs, err := c.client.BatchV1().Jobs(c.namespace).List(c.ctx, metav1.ListOptions{})
	must(t, err)
	if len(jobs.Items) != 1 {
		t.Errorf("there are %d Jobs", len(jobs.Items))
	}
	must(t, frozen.input.Close())
	await(t, "the standby has ended", frozen.exited)
	must(t, frozen.err)
}
