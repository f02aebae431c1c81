package k8sjob

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

// envStandby has the test's program be a server's process in the place of a test: a
// standby that watches and records, over the stores of the test.
const envStandby = "TASKBRIDGE_TEST_STANDBY"

// standby is what such a process is told on its standard input, which ends when it is
// to end.
type standby struct {
	Socket    string // of the stores
	Namespace string
	Template  []byte
	Election  Election
}

// runStandby is the process.
func runStandby() error {
	input := json.NewDecoder(os.Stdin)
	var told standby
	if err := input.Decode(&told); err != nil {
		return err
	}
	client, err := NewClient(ClientOptions{Kubeconfig: os.Getenv(envKubeconfig)})
	if err != nil {
		return err
	}
	conn, err := rpc.Dial("unix", told.Socket)
	if err != nil {
		return err
	}
	store := remoteStore{conn}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{
		Stores: taskbridge.Stores{Tasks: store, Events: store}, Backstop: 200 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	executor, err := New(Options{
		Client: client, Namespace: told.Namespace, Lifecycle: lifecycle, Rows: store, Election: &told.Election,
		Types: map[string]TypeOptions{"work": {Template: told.Template}}, Submission: quick,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, executor.Close(), conn.Close())
}

// sentinels are the errors of stores that come over the wire as themselves.
var sentinels = []error{
	taskbridge.ErrTaskNotFound, taskbridge.ErrRevisionConflict, taskbridge.ErrIllegalTransition, taskbridge.ErrTaskFinished,
	taskbridge.ErrStaleProducer, taskbridge.ErrStaleAttempt, taskbridge.ErrOrdinalReused, taskbridge.ErrStreamFull,
	taskbridge.ErrPayloadTooLarge, taskbridge.ErrInvalidArgument,
}

// StoreService serves a store to other processes, by net/rpc.
type StoreService struct{ store *memory.Store }

// StoreCall are the arguments of all calls, as far as each has them.
type StoreCall struct {
	ID     string
	Task   taskbridge.Task
	Append []taskbridge.EventAppend
	After  int64
	Limit  int
}

// StoreAnswer is what came of it.
type StoreAnswer struct {
	Task   taskbridge.Task
	Append taskbridge.AppendResult
	Events []taskbridge.Event
	State  taskbridge.StreamState
	Error  string // "": none
	Kind   int    // of the error: 1 and up are sentinels
}

func (a *StoreAnswer) note(err error) {
	if err == nil {
		return
	}
	a.Error = err.Error()
	for i, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			a.Kind = i + 1
		}
	}
}

// GetTask is the store's, as are those below.
func (s *StoreService) GetTask(call StoreCall, answer *StoreAnswer) (err error) {
	answer.Task, err = s.store.GetTask(context.Background(), call.ID)
	answer.note(err)
	return nil
}

// UpdateTask updates the row and appends events, if there are any, as one.
func (s *StoreService) UpdateTask(call StoreCall, answer *StoreAnswer) (err error) {
	answer.Task, err = s.store.UpdateTaskAndAppend(context.Background(), call.Task, call.Append)
	answer.note(err)
	return nil
}

// AppendEvent appends one.
func (s *StoreService) AppendEvent(call StoreCall, answer *StoreAnswer) (err error) {
	answer.Append, err = s.store.AppendEvent(context.Background(), call.Append[0])
	answer.note(err)
	return nil
}

// ReadEvents reads a page.
func (s *StoreService) ReadEvents(call StoreCall, answer *StoreAnswer) (err error) {
	answer.Events, err = s.store.ReadEvents(context.Background(), call.ID, call.After, call.Limit)
	answer.note(err)
	return nil
}

// StreamState reads a stream's.
func (s *StoreService) StreamState(call StoreCall, answer *StoreAnswer) (err error) {
	answer.State, err = s.store.StreamState(context.Background(), call.ID)
	answer.note(err)
	return nil
}

// serveStore serves the store on a socket until the test ends.
func (c *cluster) serveStore(store *memory.Store, dir string) (socket string) {
	c.t.Helper()
	server := rpc.NewServer()
	must(c.t, server.RegisterName("Store", &StoreService{store}))
	socket = filepath.Join(dir, "s")
	listener, err := (&net.ListenConfig{}).Listen(c.ctx, "unix", socket)
	must(c.t, err)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go server.ServeConn(conn) // ends with the other process
		}
	}()
	c.t.Cleanup(func() {
		must(c.t, listener.Close())
		<-accepting
	})
	return socket
}

// remoteStore is a store of another process. What it does not have a lifecycle does
// not need.
type remoteStore struct{ conn *rpc.Client }

var (
	_ taskbridge.AtomicStore = remoteStore{}
	_ Rows                   = remoteStore{}

	errNotServed = errors.New("not served to other processes")
)

func (s remoteStore) call(ctx context.Context, name string, call StoreCall) (StoreAnswer, error) {
	var answer StoreAnswer
	going := s.conn.Go("Store."+name, call, &answer, make(chan *rpc.Call, 1))
	select {
	case <-going.Done:
	case <-ctx.Done():
		return StoreAnswer{}, ctx.Err()
	}
	switch {
	case going.Error != nil:
		return StoreAnswer{}, going.Error
	case answer.Kind > 0:
		return answer, sentinels[answer.Kind-1]
	case answer.Error != "":
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

func (s remoteStore) GetTask(ctx context.Context, taskID string) (taskbridge.Task, error) {
	answer, err := s.call(ctx, "GetTask", StoreCall{ID: taskID})
	return answer.Task, err
}

func (s remoteStore) UpdateTask(ctx context.Context, next taskbridge.Task) (taskbridge.Task, error) {
	return s.UpdateTaskAndAppend(ctx, next, nil)
}

func (s remoteStore) UpdateTaskAndAppend(ctx context.Context, next taskbridge.Task, events []taskbridge.EventAppend) (taskbridge.Task, error) {
	answer, err := s.call(ctx, "UpdateTask", StoreCall{Task: next, Append: events})
	return answer.Task, err
}

func (s remoteStore) AppendEvent(ctx context.Context, event taskbridge.EventAppend) (taskbridge.AppendResult, error) {
	answer, err := s.call(ctx, "AppendEvent", StoreCall{Append: []taskbridge.EventAppend{event}})
	return answer.Append, err
}

func (s remoteStore) ReadEvents(ctx context.Context, taskID string, after int64, limit int) ([]taskbridge.Event, error) {
	answer, err := s.call(ctx, "ReadEvents", StoreCall{ID: taskID, After: after, Limit: limit})
	return answer.Events, err
}

func (s remoteStore) StreamState(ctx context.Context, taskID string) (taskbridge.StreamState, error) {
	answer, err := s.call(ctx, "StreamState", StoreCall{ID: taskID})
	return answer.State, err
}

// A wake-up may be lost; here all are.

func (s remoteStore) WatchTask(context.Context, string, func()) (func(), error) {
	return func() {}, nil
}

func (s remoteStore) WatchEvents(context.Context, string, func()) (func(), error) {
	return func() {}, nil
}

func (s remoteStore) CreateTask(context.Context, taskbridge.Task) (taskbridge.Task, bool, error) {
	return taskbridge.Task{}, false, errNotServed
}

func (s remoteStore) ListTasks(context.Context, taskbridge.TaskQuery) ([]taskbridge.Task, error) {
	return nil, errNotServed
}

func (s remoteStore) DueTasks(context.Context, taskbridge.DueKind, time.Time, int) ([]string, error) {
	return nil, errNotServed
}

func (s remoteStore) RetireTask(context.Context, taskbridge.Task, time.Time) error {
	return errNotServed
}

func (s remoteStore) DeleteTask(context.Context, string) error { return errNotServed }

func (s remoteStore) DeleteEvents(context.Context, string, int) (bool, error) {
	return false, errNotServed
}
