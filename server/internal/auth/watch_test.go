package auth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/fakes"
)

// keyFile is a file of keys that a test changes under the server.
type keyFile struct {
	t     *testing.T
	path  string
	clock *fakes.ManualClock
	log   *logBuffer
	keys  *APIKeys
}

func openKeyFile(t *testing.T, content string) *keyFile {
	t.Helper()
	f := &keyFile{t: t, path: filepath.Join(t.TempDir(), "keys.yaml"), clock: newClock(), log: &logBuffer{}}
	writeFile(t, f.path, content)
	f.open()
	return f
}

func (f *keyFile) open() {
	f.t.Helper()
	keys, err := OpenAPIKeys(APIKeyOptions{File: f.path, Clock: f.clock, Logger: f.log.logger()})
	if err != nil {
		f.t.Fatal(err)
	}
	f.keys = keys
	f.t.Cleanup(func() {
		if err := keys.Close(); err != nil {
			f.t.Error(err)
		}
	})
}

// poll lets the file be read once, without the time to settle.
func (f *keyFile) poll() {
	f.t.Helper()
	until(f.t, f.clock, defaultReload)
	f.clock.Advance(defaultReload)
}

// reload lets the file be read, settle and be taken, and waits until it was.
func (f *keyFile) reload() {
	f.t.Helper()
	f.poll()
	until(f.t, f.clock, settlePause)
	f.clock.Advance(settlePause)
	until(f.t, f.clock, defaultReload)
}

// failedPoll lets the file be read that cannot be, and waits until it was.
func (f *keyFile) failedPoll() {
	f.t.Helper()
	f.poll()
	until(f.t, f.clock, defaultReload)
}

func (f *keyFile) good(key, subject string, scopes []taskbridge.Scope) {
	f.t.Helper()
	got, err := f.keys.Verify(key)
	wantPrincipal(f.t, got, err, subject, scopes)
}

func (f *keyFile) bad(key string, want error) {
	f.t.Helper()
	_, err := f.keys.Verify(key)
	wantRefusal(f.t, err, want)
}

func TestARevokedKeyIsRefusedWithinTheStatedWindowAndANewOneIsGood(t *testing.T) {
	old, oldText := testKey(t, KeyEntry{ID: "old", Subject: "alice", Scopes: readWrite})
	fresh, freshText := testKey(t, KeyEntry{ID: "new", Subject: "alice", Scopes: readWrite})
	f := openKeyFile(t, "keys:\n"+oldText)
	until(t, f.clock, defaultReload)
	replaceFile(t, f.path, "keys:\n"+freshText)
	f.good(old, "alice", readWrite) // not read yet
	changed := f.clock.Now()
	f.reload()
	f.bad(old, errKeyUnknown)
	f.good(fresh, "alice", readWrite)
	if took, stated := f.clock.Now().Sub(changed), defaultReload+500*time.Millisecond; took > stated {
		t.Errorf("revoked after %s, stated are %s", took, stated)
	}
}

func TestAKeyThatChangesItsScopesKeepsWorkingWithTheNewOnes(t *testing.T) {
	key, entry, err := NewKey(KeyEntry{ID: "k", Subject: "alice", Scopes: readWrite})
	if err != nil {
		t.Fatal(err)
	}
	text := func(scopes string) string {
		return fmt.Sprintf("keys:\n- {id: k, hash: %q, subject: alice, scopes: [%s]}\n", entry.Hash, scopes)
	}
	f := openKeyFile(t, text("tasks:write, tasks:read"))
	f.good(key, "alice", readWrite)
	replaceFile(t, f.path, text("tasks:read"))
	f.reload()
	f.good(key, "alice", readOnly)
}

func TestAFileOfTheSameSizeAndTimeIsStillSeenToBeAnother(t *testing.T) {
	old, oldText := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	fresh, freshText := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	f := openKeyFile(t, "keys:\n"+oldText)
	info, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.path, "keys:\n"+freshText) // in place: the inode stays
	if err := os.Chtimes(f.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	f.reload()
	f.bad(old, errKeyUnknown)
	f.good(fresh, "alice", readOnly)
}

func TestAFileBehindASwappedSymlinkIsRead(t *testing.T) {
	old, oldText := testKey(t, KeyEntry{ID: "old", Subject: "alice", Scopes: readOnly})
	fresh, freshText := testKey(t, KeyEntry{ID: "new", Subject: "alice", Scopes: readOnly})
	// As Kubernetes lays a Secret out: keys.yaml -> ..data/keys.yaml, and
	// ..data -> a folder with the time in its name, which is what is swapped.
	mount := t.TempDir()
	for folder, content := range map[string]string{"..2030_06_01": oldText, "..2030_06_02": freshText} {
		if err := os.Mkdir(filepath.Join(mount, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(mount, folder, "keys.yaml"), "keys:\n"+content)
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(mount, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..2030_06_01", "..data")
	link(filepath.Join("..data", "keys.yaml"), "keys.yaml")
	f := &keyFile{t: t, path: filepath.Join(mount, "keys.yaml"), clock: newClock(), log: &logBuffer{}}
	f.open()
	f.good(old, "alice", readOnly)
	link("..2030_06_02", "..data_tmp")
	if err := os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")); err != nil {
		t.Fatal(err)
	}
	f.reload()
	f.bad(old, errKeyUnknown)
	f.good(fresh, "alice", readOnly)
}

func TestAFileThatIsBeingWrittenIsNotTakenHalf(t *testing.T) {
	first, firstText := testKey(t, KeyEntry{ID: "first", Subject: "alice", Scopes: readOnly})
	second, secondText := testKey(t, KeyEntry{ID: "second", Subject: "bob", Scopes: readOnly})
	f := openKeyFile(t, "keys:\n"+firstText+secondText)
	// A writer that truncates the file and has got as far as the first entry,
	// which is a valid file: nobody may be refused because of it.
	writeFile(t, f.path, "keys:\n"+firstText)
	f.poll()
	until(t, f.clock, settlePause)
	f.good(second, "bob", readOnly)
	writeFile(t, f.path, "keys:\n"+firstText+secondText+"# the end\n")
	f.clock.Advance(settlePause)
	until(t, f.clock, settlePause)
	f.good(second, "bob", readOnly)
	f.clock.Advance(settlePause)
	until(t, f.clock, defaultReload)
	f.good(first, "alice", readOnly)
	f.good(second, "bob", readOnly)
	if !strings.Contains(f.log.String(), "a file was read again") {
		t.Errorf("the new file was not taken:\n%s", f.log)
	}
}

func TestAFileThatNeverSettlesIsATrouble(t *testing.T) {
	key, text := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	f := openKeyFile(t, "keys:\n"+text)
	writeFile(t, f.path, "keys:\n")
	f.poll()
	for i := range settleTries {
		until(t, f.clock, settlePause)
		writeFile(t, f.path, fmt.Sprintf("keys: [] # %d\n", i))
		f.clock.Advance(settlePause)
	}
	until(t, f.clock, defaultReload)
	f.good(key, "alice", readOnly)
	if !strings.Contains(f.log.String(), errUnsettled.Error()) {
		t.Errorf("nothing in the log:\n%s", f.log)
	}
	f.reload() // it has settled by now
	f.bad(key, errKeyUnknown)
}

func TestABadFileOpensNothingAndKeepsTheOldKeysForALimitedTime(t *testing.T) {
	stranger, strangerText := testKey(t, KeyEntry{ID: "stranger", Subject: "mallory", Scopes: adminOnly})
	for _, test := range []struct {
		name string
		// spoil makes the file bad; settles says whether it can be read at all.
		spoil   func(t *testing.T, path string)
		settles bool
		log     string
	}{
		{"deleted", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, false, "no such file"},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, false, "no regular file"},
		{"a dangling link", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		}, false, "no such file"},
		{"too large", func(t *testing.T, path string) {
			replaceFile(t, path, strings.Repeat("#", maxWatchedBytes+1))
		}, false, "more than"},
		{"empty", func(t *testing.T, path string) { replaceFile(t, path, "") }, true, "it is empty"},
		{"no YAML", func(t *testing.T, path string) { replaceFile(t, path, "keys:\n - [") }, true, "no list of keys"},
		{"one bad entry", func(t *testing.T, path string) {
			replaceFile(t, path, "keys:\n"+strangerText+"  - id: other\n    subject: x\n    scopes: [admin]\n")
		}, true, "key number 2: hash"},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, text := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
			f := openKeyFile(t, "keys:\n"+text)
			until(t, f.clock, defaultReload)
			lastGood := f.clock.Now()
			test.spoil(t, f.path)
			again := f.failedPoll
			if test.settles {
				again = f.reload
			}
			again()
			f.good(key, "alice", readOnly)
			f.bad(stranger, errKeyUnknown)
			again()
			again()
			if got := strings.Count(f.log.String(), "level=ERROR"); got != 1 || !strings.Contains(f.log.String(), test.log) {
				t.Errorf("%d errors logged, want one with %q:\n%s", got, test.log, f.log)
			}
			f.clock.Advance(lastGood.Add(defaultStale).Sub(f.clock.Now()))
			f.good(key, "alice", readOnly)
			f.clock.Advance(time.Nanosecond)
			for _, k := range []string{key, stranger} {
				_, err := f.keys.Verify(k)
				wantUnavailable(t, err)
			}
			if test.settles { // it was read once more meanwhile
				until(t, f.clock, settlePause)
				f.clock.Advance(settlePause)
			}
			until(t, f.clock, defaultReload)
			if err := os.RemoveAll(f.path); err != nil {
				t.Fatal(err)
			}
			writeFile(t, f.path, "keys:\n"+text)
			f.clock.Advance(defaultReload)
			until(t, f.clock, defaultReload)
			f.good(key, "alice", readOnly)
			if !strings.Contains(f.log.String(), "a file is good again") {
				t.Errorf("its recovery is not in the log:\n%s", f.log)
			}
		})
	}
}

func TestAFileWithoutKeysLetsNobodyIn(t *testing.T) {
	key, text := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	f := openKeyFile(t, "keys:\n"+text)
	replaceFile(t, f.path, "keys: []\n")
	f.reload()
	f.bad(key, errKeyUnknown)
}
