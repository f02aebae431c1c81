package crashtest

import (
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// runZombies has servers that others take for dead while they live on: they
// were stopped for a while, or cut off from the leaser.
func runZombies(t *testing.T, h Harness) {
	t.Run("what a server was running is lost once its lease has ended, and it can report nothing more", func(t *testing.T) {
		z, ok := newZombie(t, h)
		if !ok {
			return
		}
		run, err := z.old.lifecycle.Start(z.old.ctx, z.id, taskbridge.Claim{ID: "old", Instance: z.old.instance})
		mustNotBe(t, err, "start")
		z.old.runs = append(z.old.runs, run)
		z.takeOver()
		row, _ := z.next.checkEnd(z.id)
		if failure, ok := row.Failure(); !ok || failure.Code != taskbridge.CodeExecutorLost || !failure.Retryable {
			t.Errorf("the task is %s %s", row.Status, row.Terminal)
		}
		<-run.Done()
		if err := run.Complete(z.old.ctx, taskbridge.Completion{}); err == nil {
			t.Error("the old server could complete the task")
		}
		z.next.checkStaysEnded(z.id)
	})
	t.Run("what a server had not started goes to the next, and the old one may not start it", func(t *testing.T) {
		z, ok := newZombie(t, h)
		if !ok {
			return
		}
		z.takeOver()
		var ended taskbridge.TaskStatus
		if _, err := z.old.lifecycle.Start(z.old.ctx, z.id, taskbridge.Claim{ID: "old", Instance: z.old.instance}); !refusedToRun(err) {
			t.Errorf("the old server's start: %v, want ErrNotRunnable", err)
		}
		mustNotBe(t, z.next.awaitEnd(z.id, &ended), "wait for the end")
		z.next.reconcile()
		row, events := z.next.checkEnd(z.id)
		if row.Status != taskbridge.StatusCompleted || row.Attempt != 1 {
			t.Errorf("the task ended %s in attempt %d: %s", row.Status, row.Attempt, ids(events))
		}
		z.next.checkStaysEnded(z.id)
	})
	t.Run("a task of a server that lives is left alone by others", func(t *testing.T) {
		z, ok := newZombie(t, h)
		if !ok {
			return
		}
		run, err := z.old.lifecycle.Start(z.old.ctx, z.id, taskbridge.Claim{ID: "old", Instance: z.old.instance})
		mustNotBe(t, err, "start")
		z.old.runs = append(z.old.runs, run)
		for range 100 { // far longer than any lease, in steps shorter than its renewal
			mustNotBe(t, z.clock.BlockUntilDue(z.ctx, 2, 5*time.Second), "wait for both instances to renew their leases")
			z.clock.Advance(5 * time.Second)
			mustNotBe(t, z.clock.BlockUntilDue(z.ctx, 2, 5*time.Second), "wait for both instances to have renewed their leases")
			z.next.reconcile()
			mustNotBe(t, z.next.bridge.Reconciler.Recover(z.next.ctx), "recover")
		}
		mustNotBe(t, run.Complete(z.old.ctx, taskbridge.Completion{}), "complete")
		row, _ := z.next.checkEnd(z.id)
		if row.Status != taskbridge.StatusCompleted {
			t.Errorf("the task ended %s %s", row.Status, row.Terminal)
		}
	})
}

// zombie is a server that took a task and has not begun with it, and the next
// server.
type zombie struct {
	*world
	old, next *process
	id        string
}

func newZombie(t *testing.T, h Harness) (*zombie, bool) {
	t.Helper()
	w := newWorld(t, h)
	if w.backend.Leaser == nil {
		missing(t, "Backend.Leaser")
		return nil, false
	}
	z := &zombie{world: w}
	z.old = w.start(func(p *process) taskbridge.TaskExecutor {
		p.instance = p.startInstance()
		return boundTo{fakes.NewScriptedExecutor(), p.instance}
	})
	created, err := z.old.create()
	mustNotBe(t, err, "create")
	z.id = created.Task.ID
	z.next = w.start(embedded(fakes.Script{}))
	return z, true
}

// boundTo is an executor whose tasks are said to run in this process.
type boundTo struct {
	*fakes.ScriptedExecutor
	instance string
}

func (b boundTo) InstanceID() string { return b.instance }

// takeOver keeps the old server from renewing its lease until it has ended, and
// lets the next one see to what it left.
func (z *zombie) takeOver() {
	z.t.Helper()
	z.old.faults.OnEvery(fakes.OpAcquireLease, fakes.FailBefore(nil))
	z.clock.Advance(overLease)
	mustNotBe(z.t, z.next.bridge.Reconciler.Recover(z.next.ctx), "recover")
	z.next.reconcile()
}
