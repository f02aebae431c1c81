package sqlitestore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/taskbridge/taskbridge/server/sqlitestore"
)

func TestNobodyElseCanReadTheFiles(t *testing.T) {
	s := open(t, sqlitestore.Options{Dir: filepath.Join(t.TempDir(), "data")})
	for _, name := range []string{"taskbridge.db", "taskbridge.db-wal", "taskbridge.db-shm", "."} {
		info, err := os.Stat(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
}
