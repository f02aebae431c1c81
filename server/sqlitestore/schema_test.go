package sqlitestore

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// script runs SQL on the folder's database behind the store's back.
func script(t *testing.T, dir, sql string) {
	t.Helper()
	c, err := openConn(t.Context(), filepath.Join(dir, "taskbridge.db"), writerSettings)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.script(sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseThatIsNotOursIsRefused(t *testing.T) {
	for _, c := range []struct{ name, sql, want string }{
		{"of a newer schema", fmt.Sprintf("PRAGMA user_version = %d", len(migrations)+1), "was written by a newer taskbridge"},
		{"of another program", "CREATE TABLE other (no INTEGER)", "no database of taskbridge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			script(t, dir, c.sql)
			s, err := Open(t.Context(), Options{Dir: dir})
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v, want it to name the folder and to say %q", err, c.want)
			}
			script(t, dir, "PRAGMA integrity_check") // and nothing holds the file
		})
	}
}

func TestAMigrationThatFailsLeavesTheFileAsItWas(t *testing.T) {
	c := openTestConn(t)
	old := migrations
	t.Cleanup(func() { migrations = old })
	migrations = append(slices.Clip(old), "CREATE TABLE half (no INTEGER); CREATE TABLE tasks (no INTEGER)")
	if err := prepareDatabase(c); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("migration to schema %d", len(migrations))) {
		t.Errorf("the failing migration: %v", err)
	}
	version, err := c.integer(sqlSchemaVersion)
	if err != nil || version != int64(len(old)) {
		t.Errorf("the schema's version is %d, %v", version, err)
	}
	if tables, err := c.integer("SELECT count(*) FROM sqlite_schema WHERE name = 'half'"); err != nil || tables != 0 {
		t.Errorf("half of the migration is there: %d, %v", tables, err)
	}

	migrations = append(slices.Clip(old), "CREATE TABLE whole (no INTEGER)", "ALTER TABLE whole ADD COLUMN more INTEGER")
	for range 2 { // the second time there is nothing to do
		if err := prepareDatabase(c); err != nil {
			t.Fatalf("the migrations: %v", err)
		}
	}
	if version, err := c.integer(sqlSchemaVersion); err != nil || version != int64(len(migrations)) {
		t.Errorf("the schema's version is %d, %v", version, err)
	}
	if err := c.exec("INSERT INTO whole (no, more) VALUES (1, 2)"); err != nil {
		t.Error(err)
	}
}

func TestTheDatabaseIsMadeForDurabilityAndForGivingPagesBack(t *testing.T) {
	c := openTestConn(t)
	for pragma, want := range map[string]int64{
		"synchronous": 2, "auto_vacuum": 2, "busy_timeout": 5000, "wal_autocheckpoint": 4000, "journal_size_limit": maxLogBytes,
	} {
		if got, err := c.integer("PRAGMA " + pragma); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", pragma, got, err, want)
		}
	}
	if n, err := c.integer("SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"); err != nil || n != 1 {
		t.Errorf("the journal's mode is not wal: %v", err)
	}
}

func TestATaskOfTheFirstSchemaIsThereInTheNewestAndMayChange(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, migrations[0]+`; PRAGMA user_version = 1;
		INSERT INTO tasks (task_no, id, owner, client_request_id, fingerprint, type, traceparent, created_at, revision, status,
			attempt, claim, starts, controls, attempt_control, suspend_control, cancel_reason, cancel_tries,
			submission_state, submission_deadline, submission_tries, submission_barred, instance, metadata, input)
		VALUES (1, '000-old', 'alice', 'k', 'f', 'work', '', 1000000, 3, 1, 0, '', 0, 0, 0, 0, '', 0, 'submitted', 2000000, 1, 0, '', X'7b2261223a317d', X'7b226e223a327d')`)
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	row, err := s.GetTask(t.Context(), "000-old")
	if err != nil || row.Revision != 3 || string(row.Input) != `{"n":2}` || row.Submission.Tries != 1 ||
		!row.Submission.ExecutorMissingSince.IsZero() || row.Instance != "" {
		t.Errorf("%+v, %v", row, err)
	}
	row.Submission.ExecutorMissingSince = time.UnixMicro(3_000_000).UTC()
	if _, err := s.UpdateTask(t.Context(), row); err != nil {
		t.Error(err)
	}
	if again, err := s.GetTask(t.Context(), "000-old"); err != nil || !again.Submission.ExecutorMissingSince.Equal(row.Submission.ExecutorMissingSince) {
		t.Errorf("%+v, %v", again, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
