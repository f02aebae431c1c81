package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// records keeps one file for each running execution, so that the next server
// knows what a killed one left behind. Files are replaced atomically.
type records struct {
	dir  string
	lock *os.File

	mu  sync.Mutex
	own map[string]bool // claims of this executor's executions
}

// record is the content of a file; the file is named after the claim, so that a
// file that cannot be read still tells the most important part.
type record struct {
	Claim  string    `json:"claim"`
	TaskID string    `json:"taskId"`
	At     time.Time `json:"at"`
	// PID leads the session and group; 0 before the command was started.
	PID int `json:"pid,omitempty"`
	// Started and Boot tell the process from a later one with the same id.
	Started string `json:"started,omitempty"`
	Boot    string `json:"boot,omitempty"`
}

func (r record) identity() identity {
	return identity{pid: r.PID, started: r.Started, claim: r.Claim}
}

const (
	recordSuffix = ".json"
	tempSuffix   = ".tmp"
	lockName     = "lock"
)

// claimPattern is what rand.Text gives, now and with more letters.
var claimPattern = regexp.MustCompile(`^[A-Z2-7]{26,64}$`)

// openRecords makes the folder, if need be, and locks it: a second executor
// would take the first one's executions for survivors.
func openRecords(dir string) (*records, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// A child of a killed server holds its lock until it has called exec.
	const tries, pause = 20, 25 * time.Millisecond
	for try := 1; ; try++ {
		if err = lockFile(lock); err == nil {
			return &records{dir: dir, lock: lock, own: make(map[string]bool)}, nil
		}
		if try == tries {
			return nil, errors.Join(fmt.Errorf("%s is used by another executor: %w", dir, err), lock.Close())
		}
		_ = sleep(context.Background(), taskbridge.SystemClock{}, pause) // the context does not end
	}
}

func (r *records) close() error { return r.lock.Close() }

// begin makes the record of an execution whose command is not started yet. It
// is durable when begin returns.
func (r *records) begin(rec record) error {
	r.mu.Lock()
	r.own[rec.Claim] = true
	r.mu.Unlock()
	if err := r.replace(rec, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(r.dir)
}

// update adds what was learnt since begin. It outlives this process at once;
// what outlives the machine need not name its processes.
func (r *records) update(rec record) error {
	return r.replace(rec, func(*os.File) error { return nil })
}

func (r *records) replace(rec record, sync func(*os.File) error) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, rec.Claim+recordSuffix)
	file, err := os.OpenFile(path+tempSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = sync(file)
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(path+tempSuffix, path)
	}
	if err != nil {
		err = errors.Join(err, ignoreMissing(os.Remove(path+tempSuffix)))
	}
	return err
}

// remove forgets the execution. It needs no sync: a file that comes back after
// a power cut names processes of an earlier boot.
func (r *records) remove(claim string) error {
	r.mu.Lock()
	delete(r.own, claim)
	r.mu.Unlock()
	return ignoreMissing(os.Remove(filepath.Join(r.dir, claim+recordSuffix)))
}

// disown leaves the file for the next server.
func (r *records) disown(claim string) {
	r.mu.Lock()
	delete(r.own, claim)
	r.mu.Unlock()
}

// left returns the records of executions that are not this executor's. damaged
// holds what is wrong with those of which only the claim is known.
func (r *records) left() (found []record, damaged []error, err error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range entries {
		claim, isRecord := strings.CutSuffix(entry.Name(), recordSuffix)
		if !isRecord || !claimPattern.MatchString(claim) || r.own[claim] {
			continue
		}
		rec := record{}
		data, err := os.ReadFile(filepath.Join(r.dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // an execution of our own has just ended
		}
		if err == nil {
			err = json.Unmarshal(data, &rec)
		}
		if err == nil && rec.Claim != claim {
			err = errors.New("the claim within is another")
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("%s: %w", entry.Name(), err))
			rec = record{Claim: claim}
		}
		found = append(found, rec)
	}
	return found, damaged, nil
}

// probe tries whether a record could be written.
func (r *records) probe() error {
	file, err := os.CreateTemp(r.dir, "probe-*"+tempSuffix)
	if err != nil {
		return err
	}
	_, err = file.WriteString("probe")
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}

// sweep removes the temporary files that a killed server left.
func (r *records) sweep() error {
	paths, err := filepath.Glob(filepath.Join(r.dir, "*"+tempSuffix))
	for _, path := range paths {
		r.mu.Lock()
		claim := strings.TrimSuffix(filepath.Base(path), recordSuffix+tempSuffix)
		if !r.own[claim] {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
		}
		r.mu.Unlock()
	}
	return err
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
