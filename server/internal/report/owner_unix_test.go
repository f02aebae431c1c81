//go:build unix

package report

import (
	"os"
	"testing"
)

func TestAStateFolderIsItsOwnersAlone(t *testing.T) {
	foreign := "/" // root's
	if os.Geteuid() == 0 {
		foreign = folder(t, 0o700)
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path  string
		alone bool
	}{{folder(t, 0o700), true}, {folder(t, 0o770), false}, {folder(t, 0o701), false}, {foreign, false}} {
		info, err := os.Lstat(test.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := ownersAlone(info); got != test.alone {
			t.Errorf("%s with mode %v: %v", test.path, info.Mode(), got)
		}
	}
}

func folder(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}
