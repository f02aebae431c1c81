package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// openTestConn returns a connection to a new, empty database of ours.
func openTestConn(t *testing.T) *conn {
	t.Helper()
	c, err := openConn(t.Context(), filepath.Join(t.TempDir(), "taskbridge.db"), writerSettings)
	if err != nil {
		t.Fatalf("openConn: %v", err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := prepareDatabase(c); err != nil {
		t.Fatalf("prepareDatabase: %v", err)
	}
	return c
}

func TestNoStatementScansATableOrSorts(t *testing.T) {
	c := openTestConn(t)
	statements := map[string]string{
		"task by id":                  sqlTaskByID,
		"task by key":                 sqlTaskByKey,
		"state of a task":             sqlTaskState,
		"number of a stream":          sqlStreamNo,
		"last event":                  sqlLastEvent,
		"events":                      sqlReadEvents,
		"ends of a stream":            sqlStreamEnds,
		"lease":                       sqlLease,
		"end of a lease":              sqlEndLease,
		"burial":                      sqlBury,
		"row of a retired task":       sqlDropRow,
		"documents of a retired task": sqlDropAside,
		"tombstone":                   sqlUnbury,
		"number of a retired task":    sqlBuriedNo,
		"events to delete":            sqlDropEvents,
		"events that remain":          sqlEventsRemain,
		"end of a stream":             sqlDropNo,
	}
	for set, sql := range sqlUpdateTask {
		statements[fmt.Sprintf("update of a task with the indexed columns %b", set)] = sql
	}
	for kind, sql := range sqlDueTasks {
		statements["due for "+string(kind)] = sql
	}
	for set := 1; set < 1<<len(statusCodes); set++ {
		var codes []int64
		for i := range len(statusCodes) {
			if set>>i&1 == 1 {
				codes = append(codes, int64(i+1))
			}
		}
		for _, byOwner := range []bool{false, true} {
			for _, byType := range []bool{false, true} {
				name := fmt.Sprintf("list of statuses %v, by owner %v, by type %v", codes, byOwner, byType)
				statements[name] = listStatement(codes, byOwner, byType)
			}
		}
	}
	for name, sql := range statements {
		plan := explain(t, c, sql)
		for _, step := range plan {
			// Few rows and no table of ours: the list's types, the stream's number.
			if strings.HasPrefix(step, "SCAN json_each") || strings.HasPrefix(step, "SCAN CONSTANT ROW") ||
				step == "SCAN stream" || strings.HasPrefix(step, "SCAN (subquery-") {
				continue
			}
			if strings.Contains(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") || strings.Contains(step, "AUTOMATIC") {
				t.Errorf("%s: %q in the plan\n\t%s\nof %s", name, step, strings.Join(plan, "\n\t"), sql)
			}
		}
	}
}

func explain(t *testing.T, c *conn, sql string) (plan []string) {
	t.Helper()
	err := c.query(background, "EXPLAIN QUERY PLAN "+sql, func(row []driver.Value) error {
		plan = append(plan, text(row[3]))
		return nil
	}, make([]driver.Value, 64)...)
	if err != nil {
		t.Fatalf("explanation of %s: %v", sql, err)
	}
	return plan
}
