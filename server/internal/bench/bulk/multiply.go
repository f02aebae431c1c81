package bulk

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	_ "modernc.org/sqlite" // the driver
)

// sequenceBits is where the number of a task begins in the number of an event.
const sequenceBits = 28

// open opens the file of a store that is closed, for work that a crash may spoil.
func open(dir string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(filepath.Join(dir, "taskbridge.db")), RawQuery: url.Values{
		"_pragma": {"journal_mode(off)", "synchronous(off)", "cache_size(-524288)"},
	}.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// Multiply copies the tasks of the folder's store, which are all that it has and
// numbered from 1, until it has n, a multiple of what is there. Number and age go
// the same way: a copy is the time every older than the one after it, and the
// last are as old as what was there. The store must be closed.
func Multiply(ctx context.Context, dir string, n int, every time.Duration) (err error) {
	db, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var there int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM tasks").Scan(&there); err != nil {
		return err
	}
	if there == 0 || n%there != 0 {
		return fmt.Errorf("bulk: %d tasks cannot be made of %d", n, there)
	}
	m := multiplication{db: db, there: there, step: int64(there) * every.Microseconds()}
	copies := n/there - 1
	for table, names := range map[string]*[]string{"tasks": &m.tasks, "events": &m.events} {
		if *names, err = columns(ctx, db, table); err != nil {
			return err
		}
		if err := makeOlder(ctx, db, table, *names, int64(copies)*m.step); err != nil {
			return err
		}
	}
	if _, err := db.ExecContext(ctx, "CREATE TEMP TABLE names (no INTEGER PRIMARY KEY, id TEXT NOT NULL, key TEXT NOT NULL)"); err != nil {
		return err
	}
	for i := 1; i <= copies; i++ {
		if err := m.copyAll(ctx, i); err != nil {
			return fmt.Errorf("bulk: copy %d: %w", i, err)
		}
	}
	return nil
}

func columns(ctx context.Context, db *sql.DB, table string) (names []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// isTime reports whether the column holds a time in microseconds.
func isTime(column string) bool {
	return strings.HasPrefix(column, "due_") || strings.HasSuffix(column, "_at") ||
		column == "submission_lease_until" || column == "submission_deadline"
}

func makeOlder(ctx context.Context, db *sql.DB, table string, names []string, micros int64) error {
	var sets []string
	for _, name := range names {
		if isTime(name) {
			sets = append(sets, fmt.Sprintf("%[1]s = %[1]s - %[2]d", name, micros))
		}
	}
	_, err := db.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET %s", table, strings.Join(sets, ", ")))
	return err
}

// multiplication is the copying of what is there.
type multiplication struct {
	db            *sql.DB
	tasks, events []string // columns
	there         int      // how many tasks
	step          int64    // between a copy and the next, in microseconds
}

// copyAll makes the i-th copy.
func (m *multiplication) copyAll(ctx context.Context, i int) (err error) {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := m.rename(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	values := func(names []string, changed map[string]string) string {
		var all []string
		for _, name := range names {
			switch change, ok := changed[name]; {
			case ok:
				all = append(all, change)
			case isTime(name):
				all = append(all, fmt.Sprintf("t.%s + %d", name, int64(i)*m.step))
			default:
				all = append(all, "t."+name)
			}
		}
		return strings.Join(all, ", ")
	}
	shift := i * m.there
	for _, statement := range []string{
		fmt.Sprintf("INSERT INTO tasks (%s) SELECT %s FROM names n CROSS JOIN tasks t ON t.task_no = n.no ORDER BY n.no",
			strings.Join(m.tasks, ", "), values(m.tasks, map[string]string{
				"task_no": fmt.Sprintf("t.task_no + %d", shift), "id": "n.id", "client_request_id": "n.key",
			})),
		fmt.Sprintf("INSERT INTO events (%s) SELECT %s FROM events t WHERE t.event_no < %d << %d ORDER BY t.event_no",
			strings.Join(m.events, ", "), values(m.events, map[string]string{
				"event_no": fmt.Sprintf("t.event_no + (%d << %d)", shift, sequenceBits),
			}), m.there+1, sequenceBits),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// rename finds new ids and keys.
func (m *multiplication) rename(ctx context.Context, tx *sql.Tx) (err error) {
	insert, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO names (no, id, key) VALUES (?, ?, ?)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	for no := 1; no <= m.there; no++ {
		key := rand.Text()
		if _, err := insert.ExecContext(ctx, no, taskbridge.NewTaskID(Owner, key), key); err != nil {
			return err
		}
	}
	return nil
}

// Sample returns the places of n tasks of the folder's store, spread over all of
// it, in a random order that is the same for each call. The store must be closed.
func Sample(ctx context.Context, dir string, n int) (places []taskbridge.ListCursor, err error) {
	db, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, `
		WITH RECURSIVE size (n) AS (SELECT max(task_no) FROM tasks),
		picked (i, no) AS (SELECT 1, 1 UNION ALL SELECT i + 1, 1 + i * 7368787 % (SELECT n FROM size) FROM picked WHERE i < ?)
		SELECT id, created_at FROM picked CROSS JOIN tasks ON task_no = no`, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var place taskbridge.ListCursor
		var micros int64
		if err := rows.Scan(&place.TaskID, &micros); err != nil {
			return nil, err
		}
		place.CreatedAt = time.UnixMicro(micros).UTC()
		places = append(places, place)
	}
	return places, rows.Err()
}
