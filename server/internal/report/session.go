// Package report is what "taskbridge report" does: it reports on a task over the
// worker API, one report a process. What has to outlive a process, the attempt's
// token and the last ordinal, is in a state file that all reports on one
// execution of the work share.
package report

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// Options says which task is reported on, and by which right.
type Options struct {
	// URL is the server's, without a path.
	URL    string
	TaskID string
	// Token is the submission token, or an API key with the scope worker;
	// TokenFile has it instead.
	Token, TokenFile string
	// Claim is the identity of this execution of the work; empty: a random one,
	// which is kept in the state file.
	Claim string
	// StateFile is shared by all reports on one execution; empty: a file of the
	// folder for temporary files.
	StateFile string
	// Timeout bounds one report, with its repetitions.
	Timeout time.Duration
	// TryTimeout bounds the wait for a connection, and for the answer to a request
	// that was sent; 0: 10 s. [Session.Check] adds the time that the server is to wait.
	TryTimeout time.Duration
}

// Errors that say what the work is to do.
var (
	// ErrStop: the work must not go on, nor be begun: the task has ended, was
	// cancelled before it began, or runs elsewhere.
	ErrStop = errors.New("the work must stop")
	// ErrRefused: the report cannot be recorded as it is.
	ErrRefused = errors.New("the report was refused")
	// ErrUnreachable: the server did not answer in time; the report may have been
	// recorded.
	ErrUnreachable = errors.New("the server could not be reached")
)

// state is the content of the state file.
type state struct {
	TaskID string `json:"taskId"`
	Claim  string `json:"claim"`
	Token  string `json:"token,omitempty"` // of the attempt; empty before the start
	// Ordinal is the last one that may have been used.
	Ordinal   int64 `json:"ordinal"`
	Cancelled bool  `json:"cancellationRequested,omitempty"`
}

// Session is one process's turn to report. Others wait until it is closed.
type Session struct {
	opts  Options
	path  string
	lock  *flock.Flock
	state state
	kept  bool // the state file has the claim
	// ending: what is reported ends the task, so that nothing builds on the state.
	ending bool
	api    *api
	fresh  string // the credential for a start, "" until it is needed
}

// Open waits for the turn and reads the state.
func Open(ctx context.Context, opts Options) (*Session, error) {
	for _, required := range []struct{ value, name string }{
		{opts.URL, "the server's address (TASKBRIDGE_URL)"}, {opts.TaskID, "the task's id (TASKBRIDGE_TASK_ID)"},
	} {
		if required.value == "" {
			return nil, fmt.Errorf("%s is missing", required.name)
		}
	}
	// The error would quote a password that does not belong there.
	if u, err := url.Parse(opts.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the server's address (TASKBRIDGE_URL) must be http://host or https://host, with a port and a path if need be")
	}
	s := &Session{opts: opts, path: opts.StateFile, api: newAPI(opts.URL, opts.TaskID, opts.tryTimeout())}
	if s.path == "" {
		var err error
		if s.path, err = defaultStateFile(opts); err != nil {
			return nil, err
		}
	}
	s.lock = flock.New(s.path+".lock", flock.SetPermissions(0o600))
	if err := s.turn(ctx); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (o Options) tryTimeout() time.Duration { return cmp.Or(o.TryTimeout, 10*time.Second) }

// turn waits until nobody else reports, and reads the state.
func (s *Session) turn(ctx context.Context) error {
	if _, err := s.lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("lock of the state file %s: %w", s.path, err)
	}
	if err := s.read(); err != nil {
		return fmt.Errorf("state file %s: %w", s.path, err)
	}
	return nil
}

// Close lets others report.
func (s *Session) Close() error { return s.lock.Close() }

// defaultStateFile is one for the task and the claim, in a folder that nobody
// else can write to: what is read there is used as a token.
func defaultStateFile(opts Options) (string, error) {
	dir := filepath.Join(os.TempDir(), "taskbridge-report-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return "", err
	case !info.IsDir() || !ownersAlone(info):
		return "", fmt.Errorf("%s must be a folder of this user alone (set TASKBRIDGE_STATE_FILE to another place)", dir)
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{opts.URL, opts.TaskID, opts.Claim}, "\x00")))
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+".json"), nil
}

func (s *Session) read() error {
	content, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.state, s.kept = state{TaskID: s.opts.TaskID, Claim: s.opts.Claim}, false
		if s.state.Claim == "" {
			s.state.Claim = rand.Text()
		}
		return nil
	case err != nil:
		return err
	}
	s.state = state{}
	if err := json.Unmarshal(content, &s.state); err != nil {
		return fmt.Errorf("its content is no state: %w", err)
	}
	if s.state.TaskID != s.opts.TaskID || s.opts.Claim != "" && s.state.Claim != s.opts.Claim {
		return errors.New("it is of another task or claim")
	}
	s.kept = true
	return nil
}

// keep writes the state before whatever follows from it is done. An end is
// reported even if that fails, on a disk that is full for instance.
func (s *Session) keep() error {
	err := s.write()
	if s.ending {
		return nil
	}
	return err
}

func (s *Session) write() error {
	content, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	// A name of its own: the folder may be everybody's, and what is there already
	// is not to be written to.
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	s.kept = true
	return nil
}

// credential is what a start is authorised by.
func (s *Session) credential() (string, error) {
	if s.fresh != "" {
		return s.fresh, nil
	}
	s.fresh = s.opts.Token
	if s.fresh == "" && s.opts.TokenFile != "" {
		content, err := os.ReadFile(s.opts.TokenFile)
		if err != nil {
			return "", err
		}
		s.fresh = strings.TrimSpace(string(content))
	}
	switch {
	case s.fresh == "":
		return "", errors.New("the token is missing (TASKBRIDGE_TOKEN_FILE or TASKBRIDGE_TOKEN)")
	case strings.ContainsFunc(s.fresh, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", errors.New("the token has characters that none has (TASKBRIDGE_TOKEN_FILE or TASKBRIDGE_TOKEN)")
	}
	return s.fresh, nil
}

// Start begins the attempt, or joins it.
func (s *Session) Start(ctx context.Context) (workerapi.StartResponse, error) {
	answer, err := s.begin(ctx)
	if err != nil {
		return answer, err
	}
	return answer, s.keep()
}

// begin is a start whose answer is not kept yet. Lost, it does no harm: the next
// start is of the same claim.
func (s *Session) begin(ctx context.Context) (workerapi.StartResponse, error) {
	var answer workerapi.StartResponse
	token, err := s.credential()
	if err != nil {
		return answer, err
	}
	// The claim first: a start whose answer is lost is repeated under it.
	if !s.kept {
		if err := s.keep(); err != nil {
			return answer, err
		}
	}
	request := workerapi.StartRequest{Claim: s.state.Claim, AttemptToken: s.state.Token}
	if err := s.api.post(ctx, "start", token, request, &answer); err != nil {
		return answer, err
	}
	s.note(answer.AttemptResponse)
	return answer, nil
}

// note takes what an answer says into the state.
func (s *Session) note(answer workerapi.AttemptResponse) {
	s.state.Token, s.state.Cancelled = answer.Token, answer.CancellationRequested
}

// attempt makes a call with the attempt's token, after a start where there is
// none yet, and again after one where it has expired.
func (s *Session) attempt(ctx context.Context, call func(token string) error) error {
	if s.state.Token == "" {
		if _, err := s.Start(ctx); err != nil {
			return err
		}
		return call(s.state.Token)
	}
	err := call(s.state.Token)
	if errors.Is(err, errUnauthenticated) {
		if _, err := s.begin(ctx); err != nil {
			return err
		}
		return call(s.state.Token)
	}
	return err
}

// Report records one report. The server recognises its repetitions, so that it
// is recorded once; a report of a process that dies on the way may be lost.
func (s *Session) Report(ctx context.Context, report workerapi.Report) error {
	switch report.Type {
	case workerapi.ReportComplete, workerapi.ReportFail, workerapi.ReportCancelled:
		s.ending = true
	}
	if s.state.Token == "" {
		if _, err := s.Start(ctx); err != nil {
			return err
		}
	}
	s.state.Ordinal++
	// Used from now on: whatever becomes of this report, the next is another one.
	if err := s.keep(); err != nil {
		return err
	}
	request := workerapi.ReportsRequest{FirstOrdinal: s.state.Ordinal, Reports: []workerapi.Report{report}}
	var answer workerapi.AttemptResponse
	err := s.attempt(ctx, func(token string) error { return s.api.post(ctx, "reports", token, request, &answer) })
	if err != nil {
		return err
	}
	s.note(answer)
	// It is recorded, and after an error it would be reported once more. What may
	// not be kept here is a newer token and that there was a cancellation: the next
	// report finds both out.
	_ = s.write()
	for _, refusal := range answer.Refused {
		return fmt.Errorf("%w: %s: %s", ErrRefused, refusal.Code, refusal.Message)
	}
	return nil
}

// Check asks for the state of the attempt, waiting for a cancellation for as long
// as wait says. Others may report meanwhile.
func (s *Session) Check(ctx context.Context, wait time.Duration) (workerapi.AttemptResponse, error) {
	var answer workerapi.AttemptResponse
	wait = min(wait, workerapi.MaxWait)
	waiting := newAPI(s.opts.URL, s.opts.TaskID, s.opts.tryTimeout()+wait)
	path := "attempt?waitTimeoutMs=" + strconv.FormatInt(wait.Milliseconds(), 10)
	var mine bool
	err := s.attempt(ctx, func(token string) (err error) {
		mine, err = s.aside(ctx, func() error { return waiting.get(ctx, path, token, &answer) })
		return err
	})
	if err != nil || !mine {
		s.state.Cancelled = answer.CancellationRequested
		return answer, err
	}
	s.note(answer)
	return answer, s.write()
}

// aside makes a call while others have their turn, and reads what they have left.
// mine: the state is still that of the start before. The turn is not taken again
// after an error that ends the session.
func (s *Session) aside(ctx context.Context, call func() error) (mine bool, err error) {
	if err := s.lock.Unlock(); err != nil {
		return false, err
	}
	err = call()
	if err != nil && !errors.Is(err, errUnauthenticated) {
		return false, err
	}
	claim := s.state.Claim
	if err := s.turn(ctx); err != nil {
		return false, err
	}
	return s.state.Claim == claim && s.state.Token != "", err
}

// Input returns the task's input.
func (s *Session) Input(ctx context.Context) (json.RawMessage, error) {
	var input json.RawMessage
	err := s.attempt(ctx, func(token string) error { return s.api.get(ctx, "input", token, &input) })
	return input, err
}

// Cancelled reports whether the last answer told of a cancellation.
func (s *Session) Cancelled() bool { return s.state.Cancelled }
