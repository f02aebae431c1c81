package k8sjob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// spoken is a pod that has said something and ended, and a task whose attempt it is.
type spoken struct {
	t         *testing.T
	pod       *corev1.Pod
	store     *memory.Store
	lifecycle *taskbridge.LocalLifecycle
	executor  *Executor
	taskID    string
	log       *logBuffer
	status    atomic.Int64 // with which the log is refused, if it is not 0
	down      atomic.Bool  // the pod is refused with it, too
}

// newSpoken makes one that has said the lines.
func newSpoken(t *testing.T, limits taskbridge.Limits, lines ...string) *spoken {
	t.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid", CreationTimestamp: metav1.NewTime(time.Unix(1_900_000_000, 0))},
		Status: corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "work", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
		}},
	}
	s := &spoken{t: t, pod: pod, store: memory.NewStore(memory.Options{}), log: &logBuffer{}}
	var log strings.Builder
	for i, line := range lines {
		fmt.Fprintf(&log, "%s %s\n", pod.CreationTimestamp.Add(time.Duration(i)*time.Microsecond).UTC().Format(time.RFC3339Nano), line)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := s.status.Load(); status != 0 && (strings.HasSuffix(r.URL.Path, "/log") || s.down.Load()) {
			w.WriteHeader(int(status))
			return
		}
		if strings.HasSuffix(r.URL.Path, "/log") {
			_, _ = w.Write([]byte(log.String()))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(pod)
	}))
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	must(t, err)
	t.Cleanup(func() { closeConnections(client) })
	s.lifecycle, err = taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: s.store, Events: s.store}, Limits: limits,
	})
	must(t, err)
	s.executor = &Executor{Options: Options{
		Client: client, Clock: taskbridge.SystemClock{}, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	}, notices: s.lifecycle}
	row, _, err := s.store.CreateTask(t.Context(), taskbridge.Task{
		ID: taskbridge.NewTaskID("owner", "1"), Owner: "owner", ClientRequestID: "1", Fingerprint: "f", Type: "work",
		Input: json.RawMessage("{}"), Metadata: json.RawMessage("{}"),
		CreatedAt: time.Unix(1, 0).UTC(), UpdatedAt: time.Unix(1, 0).UTC(), Status: taskbridge.StatusAccepted,
		Submission: taskbridge.Submission{State: taskbridge.SubmissionRecorded, Tries: 1},
	})
	must(t, err)
	s.taskID = row.ID
	return s
}

// join starts the attempt, or joins it.
func (s *spoken) join() taskbridge.NumberedRun {
	s.t.Helper()
	run, err := s.lifecycle.Start(s.t.Context(), s.taskID, taskbridge.Claim{ID: "uid", Producer: claimProducer, Epoch: 1})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, run.Close()) })
	return run.(taskbridge.NumberedRun)
}

func (s *spoken) follow(options TypeOptions) said {
	s.t.Helper()
	heard, err := s.executor.follow(s.t.Context(), s.pod, "work", options, s.join())
	must(s.t, err)
	return heard
}

// stream returns the events after the start.
func (s *spoken) stream() []string {
	s.t.Helper()
	events, err := s.store.ReadEvents(s.t.Context(), s.taskID, 1, 1000)
	must(s.t, err)
	var lines []string
	for _, event := range events {
		lines = append(lines, strings.TrimPrefix(string(event.Type), "TASK_")+" "+string(event.Payload))
	}
	return lines
}

func (s *spoken) wantStream(want ...string) {
	s.t.Helper()
	if got := s.stream(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		s.t.Errorf("the stream has %d events:", len(got))
		for _, line := range got {
			s.t.Logf("%.60s … %s (%d bytes)", line, line[max(0, len(line)-60):], len(line))
		}
	}
}

func TestTheOutputIsRecordedOnceHoweverOftenItIsRead(t *testing.T) {
	t.Parallel()
	s := newSpoken(t, taskbridge.Limits{},
		"hello", `::taskbridge {"progress":10,"stage":"load"}`, `::taskbridge {"result":1}`, `::taskbridge {"message":"m","level":"debug"}`,
		`::taskbridge {"prog`, " ", "bye\x00", `::taskbridge {"result":{"a": 2}}`, `::taskbridge {"progress":20}`)
	want := []string{
		`PROGRESS {"progress":10,"stage":"load"}`, `MESSAGE {"message":"m","level":"debug"}`,
		`MESSAGE {"message":"a report of the container was ignored: report must be a whole JSON object: the line ends within it","level":"warning"}`,
		`PROGRESS {"progress":20}`,
	}
	var readers sync.WaitGroup
	for range 3 {
		run := s.join()
		readers.Go(func() {
			heard, err := s.executor.follow(t.Context(), s.pod, "work", TypeOptions{TailLines: 10}, run)
			if err != nil || string(heard.Result) != `{"a":2}` || heard.Fail != nil || heard.Tail != "hello\nbye" || heard.Lost || !heard.Complete {
				t.Errorf("what was said is %+v, %v", heard, err)
			}
		})
	}
	readers.Wait()
	s.wantStream(want...)
}

func TestPlainLinesAreMessagesIfThatIsAskedFor(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x01", 3000) // six bytes each in JSON
	s := newSpoken(t, taskbridge.Limits{EventPayload: 4000}, "one\r", "", long, "\xff", `::taskbridge {"message":"`+strings.Repeat("x", 5000)+`"}`, "last")
	s.follow(TypeOptions{PlainLines: true})
	cut := strings.Repeat(`\u0001`, 375)
	s.wantStream(`MESSAGE {"message":"one","level":"info"}`, `MESSAGE {"message":"`+cut+` … (cut)","level":"info"}`,
		`MESSAGE {"message":"`+"\uFFFD"+`","level":"info"}`,
		`MESSAGE {"message":"a report of the container was ignored: payload has 5029 bytes, at most 4000 are allowed","level":"warning"}`,
		`MESSAGE {"message":"last","level":"info"}`)
}

func TestALineThatIsTooLongToBeReadIsCutOrWarnedOf(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70_000)
	s := newSpoken(t, taskbridge.Limits{EventPayload: 100_000}, long, `::taskbridge {"message":"`+long+`"}`)
	s.follow(TypeOptions{PlainLines: true})
	s.wantStream(`MESSAGE {"message":"`+long[:64<<10]+` … (cut)","level":"info"}`,
		`MESSAGE {"message":"a report of the container was ignored: it has 70027 bytes, at most 65536 are read","level":"warning"}`)
}

func TestManyMalformedReportsAreNotAllTold(t *testing.T) {
	t.Parallel()
	s := newSpoken(t, taskbridge.Limits{}, strings.Split(strings.Repeat("::taskbridge x\n", 50), "\n")...)
	s.follow(TypeOptions{})
	if stream := s.stream(); len(stream) != maxMalformed || !strings.Contains(stream[maxMalformed-1], "without a word") {
		t.Errorf("the stream is %q", stream)
	}
}

func TestAFullStreamDoesNotKeepTheResultFromBeingRead(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.Repeat("::taskbridge {\"progress\":1}\n", 3000), "\n")
	s := newSpoken(t, taskbridge.Limits{StreamEvents: 10}, append(lines, `::taskbridge {"result":7}`)...)
	if heard := s.follow(TypeOptions{}); string(heard.Result) != "7" || !heard.Complete {
		t.Errorf("what was said is %+v", heard)
	}
	if n := len(s.stream()); n > 10 {
		t.Errorf("the stream has %d events", n)
	}
}

func TestAFailureAndTheTailAreKept(t *testing.T) {
	t.Parallel()
	s := newSpoken(t, taskbridge.Limits{}, "1", "2", "3", strings.Repeat("x", 1500), strings.Repeat("ü", 1500),
		`::taskbridge {"fail":{"code":"BAD","message":"m","retryable":true}}`)
	heard := s.follow(TypeOptions{TailLines: 4})
	if heard.Fail == nil || heard.Fail.Code != "BAD" || !heard.Fail.Retryable {
		t.Errorf("the failure is %+v", heard.Fail)
	}
	if heard.Tail != strings.Repeat("ü", 1024) {
		t.Errorf("the tail has %d bytes: %.20q", len(heard.Tail), heard.Tail)
	}
	if heard = s.follow(TypeOptions{TailLines: -1}); heard.Tail != "" {
		t.Errorf("a tail of no lines is %q", heard.Tail)
	}
}

func TestReadingEndsWhenNothingMoreCanBeRecorded(t *testing.T) {
	t.Parallel()
	s := newSpoken(t, taskbridge.Limits{}, `::taskbridge {"progress":1}`)
	run := s.join()
	must(t, s.lifecycle.Settle(t.Context(), s.taskID, taskbridge.Outcome{Status: taskbridge.StatusCompleted}))
	if _, err := s.executor.follow(t.Context(), s.pod, "work", TypeOptions{}, run); !errors.Is(err, taskbridge.ErrTaskFinished) {
		t.Errorf("the error is %v", err)
	}
}

// leaping is a clock whose timers fire at once, after the time has passed.
type leaping struct {
	taskbridge.SystemClock
	passed atomic.Int64
}

func (c *leaping) Now() time.Time { return time.Unix(0, c.passed.Load()) }

func (c *leaping) NewTimer(d time.Duration) taskbridge.Timer {
	c.passed.Add(int64(d))
	return taskbridge.SystemClock{}.NewTimer(0)
}

func TestALogThatTheNodeDoesNotHandOutIsGivenUpAfterTheOutputTimeout(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status  int64
		atLeast time.Duration
	}{
		"it cannot now": {http.StatusInternalServerError, 20 * time.Minute}, "it has none": {http.StatusNotFound, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, clock := newSpoken(t, taskbridge.Limits{}, "hello"), &leaping{}
			s.status.Store(test.status)
			s.executor.Clock, s.executor.OutputTimeout = clock, 20*time.Minute
			if heard := s.follow(TypeOptions{}); heard.Complete || !heard.Lost {
				t.Errorf("what was said is %+v", heard)
			}
			if passed := time.Duration(clock.passed.Load()); passed < test.atLeast || passed > test.atLeast+time.Minute {
				t.Errorf("given up after %s, want %s", passed, test.atLeast)
			}
			s.wantStream(`MESSAGE {"message":"` + missingOutput + `","level":"warning"}`)
		})
	}
}

func TestWhatHoldsUpTheReadingOfAnOutputIsNoted(t *testing.T) {
	t.Parallel()
	s, clock := newSpoken(t, taskbridge.Limits{}, "hello"), &leaping{}
	clock.passed.Store(1)
	heard := &hearing{}
	run := &heardRun{&flaky{NumberedRun: s.join(), calls: 1}, clock, heard, false}
	if _, err := run.Report(t.Context(), []taskbridge.Report{{Ordinal: 1, Progress: &taskbridge.Progress{}}}); !errors.Is(err, errAway) || heard.at.Load() != 1 {
		t.Errorf("a store that is away is noted at %d, %v", heard.at.Load(), err)
	}

	s.executor.Clock = clock
	s.status.Store(http.StatusInternalServerError)
	s.down.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading sync.WaitGroup
	reading.Go(func() {
		if _, err := s.executor.follow(ctx, s.pod, "work", TypeOptions{}, run); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	})
	until(t, "that the API server is away is noted again and again", func() bool { return heard.at.Load() > int64(20*time.Second) })
	cancel()
	reading.Wait()
}

// flaky fails every other report, half of them after it was recorded.
type flaky struct {
	taskbridge.NumberedRun
	calls int
}

var errAway = errors.New("the store is away")

func (f *flaky) Report(ctx context.Context, reports []taskbridge.Report) (taskbridge.Reported, error) {
	f.calls++
	switch f.calls % 4 {
	case 0:
		reported, err := f.NumberedRun.Report(ctx, reports)
		return reported, errors.Join(err, errAway)
	case 2:
		return taskbridge.Reported{}, errAway
	}
	return f.NumberedRun.Report(ctx, reports)
}

func TestReportsAreRepeatedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	var lines, want []string
	for i := range 2000 {
		lines = append(lines, fmt.Sprintf(`::taskbridge {"progress":%d}`, i%100+1))
		want = append(want, fmt.Sprintf(`PROGRESS {"progress":%d}`, i%100+1))
	}
	s := newSpoken(t, taskbridge.Limits{}, lines...)
	s.executor.Clock = hasty{}
	if _, err := s.executor.follow(t.Context(), s.pod, "work", TypeOptions{}, &flaky{NumberedRun: s.join(), calls: 1}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < len(want) {
		events, err := s.store.ReadEvents(t.Context(), s.taskID, int64(1+len(got)), 1000)
		must(t, err)
		if len(events) == 0 {
			break
		}
		for _, event := range events {
			got = append(got, strings.TrimPrefix(string(event.Type), "TASK_")+" "+string(event.Payload))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d events, want %d", len(got), len(want))
	}
}

// hasty is a clock whose timers fire at once.
type hasty struct{ taskbridge.SystemClock }

func (hasty) NewTimer(time.Duration) taskbridge.Timer { return taskbridge.SystemClock{}.NewTimer(0) }
