package k8sjob

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func (s *scene) inspect(e *Executor) (taskbridge.Inspection, error) {
	return e.InspectTask(s.t.Context(), s.row())
}

// wantRunning checks that for so long inspections leave the end to whoever watches.
func (s *scene) wantRunning(e *Executor, during time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); s.pass(time.Minute) {
		if got, err := s.inspect(e); err != nil || got.Knowledge != taskbridge.InspectionRunning {
			s.t.Fatalf("%s before that it says %+v, %v", time.Until(end), got, err)
		}
	}
}

func TestAnInspectionLeavesTheEndToThisProcessWhileThatWaitsForTheOutput(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, away: 45 * time.Minute, said: said{Result: []byte("7")}})
		e := s.watch(nil)
		s.job(nil)
		s.pod("p1", runs)
		s.pod("p1", ends(0, "6"))
		s.final(batchv1.JobComplete, "")
		s.wantRunning(e, 44*time.Minute)
		s.pass(5 * time.Minute)
		s.wantStream("STARTED p1:1 COMPLETED")
		if result, _ := s.row().Result(); string(result) != "7" {
			s.t.Errorf("the result is %s", result)
		}
	})
}

// idle has a Lease that this process never gets, of one that does nothing.
func (s *scene) idle() *Executor {
	s.t.Helper()
	s.watch(elected("leader"))
	s.faults.rows.Store(true) // the leader's store is away
	return s.watch(func(o *Options) { elected("follower")(o); o.Rows = s.store })
}

func TestAnInspectionReadsTheResultWhereNobodyRecordsIt(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{progress: 1, said: said{Result: []byte("7")}})
		e := s.idle()
		s.job(nil)
		s.pod("p1", ends(0, "6"))
		s.final(batchv1.JobComplete, "")
		s.wantRunning(e, endTime)
		got, err := s.inspect(e)
		if err != nil || got.Knowledge != taskbridge.InspectionFinished || string(got.Outcome.Completion.Result) != "7" {
			s.t.Errorf("it says %+v, %v", got, err)
		}
		s.wantStream("warning") // reports may be missing
	})
}

func TestAnInspectionGivesOutputUpThatCannotBeReadAndSaysSo(t *testing.T) {
	play(t, func(s *scene) {
		s.says("p1", output{err: errFault, said: said{Tail: "as far as it was read"}})
		e := s.idle()
		s.job(nil)
		s.pod("p1", ends(3, ""))
		s.final(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded)
		s.wantRunning(e, endTime)
		for range int((e.patience() - endTime) / time.Minute) {
			if got, err := s.inspect(e); err == nil {
				s.t.Fatalf("it says %+v", got)
			}
			s.pass(time.Minute)
		}
		s.wantStream("")
		got, err := s.inspect(e)
		if err != nil || got.Outcome.Failure.Code != CodeExited {
			s.t.Errorf("it says %+v, %v", got, err)
		}
		s.wantStream("warning")
	})
}
