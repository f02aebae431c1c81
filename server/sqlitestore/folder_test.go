package sqlitestore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func TestAFolderHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	first := open(t, sqlitestore.Options{Dir: dir})
	second, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Dir: dir})
	if err == nil {
		t.Fatal(errors.Join(errors.New("the folder was opened twice"), second.Close()))
	}
	if want := "data folder " + dir + " is in use by another taskbridge"; !strings.Contains(err.Error(), want) {
		t.Errorf("the second opening: %v, want it to say %q", err, want)
	}
	if _, err := first.StreamState(t.Context(), "task"); err != nil {
		t.Errorf("the first store after the attempt: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, sqlitestore.Options{Dir: dir})
}

func TestAMissingFolderIsMadeForItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b?c#d %41 é")
	s := open(t, sqlitestore.Options{Dir: dir})
	if _, _, err := s.CreateTask(t.Context(), crashTask("key")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		info, err := os.Stat(d)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", d, info.Mode(), err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "taskbridge.db")); err != nil {
		t.Error(err)
	}
}

func TestAfterClosingTheFolderHoldsTheDatabaseAlone(t *testing.T) {
	s := open(t, sqlitestore.Options{Dir: t.TempDir()})
	if _, _, err := s.CreateTask(t.Context(), crashTask("key")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "taskbridge.db taskbridge.lock" {
		t.Errorf("the folder has %s", got)
	}
	if err := s.CheckHealth(t.Context()); !errors.Is(err, taskbridge.ErrClosed) {
		t.Errorf("CheckHealth after Close: %v", err)
	}
}

func TestWhatCannotBeADataFolderIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rubbish := t.TempDir()
	if err := os.WriteFile(filepath.Join(rubbish, "taskbridge.db"), []byte(strings.Repeat("rubbish ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opts sqlitestore.Options
		want string
	}{
		{"no folder named", sqlitestore.Options{}, "Dir must not be empty"},
		{"a file", sqlitestore.Options{Dir: file}, "is not a folder"},
		{"a file above", sqlitestore.Options{Dir: filepath.Join(file, "data")}, "not a"},
		{"a file that is no database", sqlitestore.Options{Dir: rubbish}, "not a database"},
		{"a negative number of readers", sqlitestore.Options{Dir: file, Readers: -1}, "Readers must not be negative"},
	} {
		s, err := sqlitestore.Open(t.Context(), c.opts)
		if err == nil {
			t.Errorf("%s: opened", c.name)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", c.name, err, c.want)
		}
	}
	// What was refused is not locked.
	if err := os.Remove(filepath.Join(rubbish, "taskbridge.db")); err != nil {
		t.Fatal(err)
	}
	open(t, sqlitestore.Options{Dir: rubbish})
}

func TestLeasesOfAnEarlierOwnerAreDropped(t *testing.T) {
	h := harness(nil)
	s := h.New(t)
	if ok, err := s.AcquireLease(t.Context(), "name", "holder", time.Hour); err != nil || !ok {
		t.Fatalf("AcquireLease: %v, %v", ok, err)
	}
	s = h.Reopen(t, s)
	if holder, err := s.LeaseHolder(t.Context(), "name"); err != nil || holder != "" {
		t.Errorf("after a reopening the lease is held by %q, %v", holder, err)
	}
}
