package k8sjob

import (
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

func elected(identity string) func(*Options) {
	return func(o *Options) { o.Election = &Election{Identity: identity} }
}

func TestTwoThatActAtOnceTellEverythingOnce(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 3})
		s.says("p2", output{progress: 3})
		for range 3 {
			s.watch(nil)
		}
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(1, ""))
		s.pass(10 * time.Second)
		s.pod("p2", runs)
		s.pod("p2", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED p1:1 p1:2 p1:3 warning p2:1 p2:2 p2:3 COMPLETED")
		if s.reads["p1"] != 3 {
			s.t.Errorf("%d read it", s.reads["p1"])
		}
	})
}

func TestOnlyTheLeaderActsAndWhoFollowsItGoesOn(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2, held: make(chan struct{})})
		first := s.watch(elected("first"))
		s.watch(elected("second"))
		s.job(nil)
		s.pod("p1", runs)
		s.pass(time.Minute)
		s.wantStream("STARTED p1:1 p1:2")
		if s.reads["p1"] != 1 {
			s.t.Errorf("%d read it", s.reads["p1"])
		}
		s.close(first) // in the middle of the output
		s.says("p1", output{progress: 4})
		s.pass(10 * time.Second)
		s.wantStream("STARTED p1:1 p1:2 p1:3 p1:4")
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED p1:1 p1:2 p1:3 p1:4 COMPLETED")
	})
}

func TestALeaderThatLosesItsLeaseStopsAndMayLeadAgain(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, held: make(chan struct{})})
		var away atomic.Bool
		s.client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errFault
		})
		e := s.watch(elected("first"))
		s.job(nil)
		s.pod("p1", runs)
		s.wantStream("STARTED p1:1")
		away.Store(true)
		s.pass(time.Minute)
		if e.watcher.term() != nil {
			s.t.Error("it acts without its lease")
		}
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.says("p1", output{progress: 2})
		s.wantStream("STARTED p1:1")
		away.Store(false)
		s.pass(time.Minute)
		s.wantStream("STARTED p1:1 p1:2 COMPLETED")
	})
}

func TestACloseInTheMiddleOfAnythingLosesNothing(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 2})
		var failing atomic.Bool
		failing.Store(true)
		s.client.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			return failing.Load(), nil, errFault
		})
		restart := func() { s.close(s.watch(nil)) }
		restart()
		s.job(nil)
		restart()
		s.pod("p1", runs)
		s.faults.notice.Store(true)
		restart()
		s.wantStream("STARTED p1:1 p1:2")
		s.pod("p1", ends(0, "1"))
		s.faults.settle.Store(true)
		restart()
		s.final(batchv1.JobComplete, "")
		restart()
		s.wantStream("STARTED p1:1 p1:2")
		s.faults.settle.Store(false)
		restart()
		s.wantStream("STARTED p1:1 p1:2 COMPLETED")
		s.wantRecorded(false)
		failing.Store(false)
		restart()
		s.wantStream("STARTED p1:1 p1:2 COMPLETED")
		s.wantRecorded(true)
	})
}

func TestAMarkThatFailsIsRepeated(t *testing.T) {
	play(t, func(s *scene) {
		var failing atomic.Bool
		failing.Store(true)
		s.client.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			return failing.Load(), nil, errFault
		})
		s.watch(nil)
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.pass(time.Minute)
		s.wantStream("STARTED COMPLETED")
		s.wantRecorded(false)
		failing.Store(false)
		s.pass(time.Minute)
		s.wantRecorded(true)
	})
}

func TestAnApiServerThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	play(t, func(s *scene) {
		var away atomic.Bool
		away.Store(true)
		s.client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errFault
		})
		s.job(nil)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.watch(nil)
		s.pass(5 * time.Minute)
		s.wantStream("")
		away.Store(false)
		s.pass(2 * time.Minute)
		s.wantStream("STARTED COMPLETED")
	})
}

func TestALeaderThatFallsSilentIsFollowedAfterItsLease(t *testing.T) {
	play(t, func(s *scene) {
		held := make(chan struct{})
		s.says("p1", output{progress: 2, held: held})
		var silent atomic.Bool
		s.client.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
			lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
			return silent.Load() && *lease.Spec.HolderIdentity != "second", nil, errFault
		})
		first := s.watch(elected("first"))
		second := s.watch(elected("second"))
		s.job(nil)
		s.pod("p1", runs)
		s.wantStream("STARTED p1:1 p1:2")
		silent.Store(true)
		s.pass(25 * time.Second) // the lease is 15 s, and the second looks every 2 s or so
		if first.watcher.term() != nil || second.watcher.term() == nil {
			s.t.Error("the second does not lead, or the first still does")
		}
		silent.Store(false)
		close(held)
		s.pod("p1", ends(0, ""))
		s.final(batchv1.JobComplete, "")
		s.wantStream("STARTED p1:1 p1:2 COMPLETED")
		if s.reads["p1"] != 2 {
			s.t.Errorf("%d read it", s.reads["p1"])
		}
	})
}
