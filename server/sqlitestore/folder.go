package sqlitestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
)

// folder is a data folder that belongs to this process alone.
type folder struct {
	dir  string
	lock *flock.Flock
}

// openFolder makes the folder where it is missing and takes its lock.
func openFolder(dir string) (*folder, error) {
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	lock := flock.New(filepath.Join(dir, "taskbridge.lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock of data folder %s: %w", dir, err)
	}
	if !locked {
		return nil, fmt.Errorf("data folder %s is in use by another taskbridge", dir)
	}
	return &folder{dir, lock}, nil
}

// makeFolder makes the folder and those above it, each known to be on the disk:
// a database that lost its folder with the power would have kept no promise.
func makeFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return errors.New("is not a folder")
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

func (f *folder) database() string { return filepath.Join(f.dir, "taskbridge.db") }

// sync makes the names of the folder's files durable.
func (f *folder) sync() error { return syncFolder(f.dir) }

func syncFolder(dir string) error {
	if runtime.GOOS == "windows" { // folders cannot be synced there, nor need to
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *folder) close() error { return f.lock.Close() }
