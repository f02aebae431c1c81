package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/bench/bulk"
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

// listStatements has the lists of every set of statuses.
func listStatements() (texts []string) {
	for set := 1; set < 1<<len(statusCodes); set++ {
		var codes []int64
		for i := range len(statusCodes) {
			if set>>i&1 == 1 {
				codes = append(codes, int64(i+1))
			}
		}
		for _, byOwner := range []bool{false, true} {
			for _, byType := range []bool{false, true} {
				texts = append(texts, listStatement(codes, byOwner, byType))
			}
		}
	}
	return texts
}

// statements are the texts of the package, by the names that they have in it.
func statements() map[string][]string {
	return map[string][]string{
		"sqlBegin": {sqlBegin}, "sqlCommit": {sqlCommit},
		"sqlSchemaVersion": {sqlSchemaVersion}, "sqlCountTables": {sqlCountTables}, "sqlDropLeases": {sqlDropLeases},
		"sqlLastNo": {sqlLastNo}, "sqlFirstNo": {sqlFirstNo},
		"sqlTaskByID": {sqlTaskByID}, "sqlTaskByKey": {sqlTaskByKey}, "sqlTaskState": {sqlTaskState},
		"sqlInsertTask": {sqlInsertTask}, "sqlInsertAside": {sqlInsertAside}, "sqlUpdateTask": sqlUpdateTask[:],
		"sqlDueTasks": slices.Collect(maps.Values(sqlDueTasks)),
		"sqlStreamNo": {sqlStreamNo}, "sqlInsertNo": {sqlInsertNo}, "sqlLastEvent": {sqlLastEvent},
		"sqlInsertEvent": {sqlInsertEvent}, "sqlReadEvents": {sqlReadEvents}, "sqlStreamEnds": {sqlStreamEnds},
		"sqlLease": {sqlLease}, "sqlTakeLease": {sqlTakeLease}, "sqlEndLease": {sqlEndLease}, "sqlEndedLeases": {sqlEndedLeases},
		"sqlBury": {sqlBury}, "sqlDropRow": {sqlDropRow}, "sqlDropAside": {sqlDropAside}, "sqlUnbury": {sqlUnbury},
		"sqlBuriedNo": {sqlBuriedNo}, "sqlDropNo": {sqlDropNo}, "sqlDropEvents": {sqlDropEvents},
		"sqlEventsRemain": {sqlEventsRemain}, "sqlPages": {sqlPages}, "sqlFreePages": {sqlFreePages}, "sqlGiveBack": {sqlGiveBack},
		"listStatement": listStatements(),
	}
}

// mayScan has the steps in which a statement goes through all of something, and
// why it may.
var mayScan = map[string]map[string]string{
	"sqlCountTables": {"SCAN sqlite_master": "a few tables, at the opening"},
	"sqlDropLeases":  {"SCAN leases": "at the opening"},
	"sqlEndedLeases": {"SCAN leases": "there is one for each instance and one for the reconciler"},
	"sqlLastNo":      {"SCAN tombstones": "at the opening, and there are only those whose deletion is under way"},
	"sqlFirstNo": {
		"SCAN tombstones": "as before",
		"SCAN streams":    "at the opening, and streams without a task are few",
	},
	"sqlReadEvents": {"SCAN stream": "one row, made by the statement"},
	"sqlStreamEnds": {"SCAN stream": "one row, made by the statement"},
	"listStatement": {"SCAN json_each VIRTUAL TABLE INDEX 1:": "the types that were asked for"},
}

func TestTheTestsKnowEveryStatement(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := statements()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for _, declared := range spec.Names {
				if strings.HasPrefix(declared.Name, "sql") && len(known[declared.Name]) == 0 {
					t.Errorf("%s: nobody looks at the plan of %s", name, declared.Name)
				}
			}
			return true
		})
	}
}

func TestNoStatementScansATableOrSorts(t *testing.T) {
	c := openTestConn(t)
	checkPlans(t, c)
}

// Statistics change what the planner chooses. The store makes none, but whoever
// looks after the file may.
func TestNoStatementScansATableOrSortsWhereThereAreStatistics(t *testing.T) {
	s := openTestStore(t, Options{})
	if err := bulk.Finish(t.Context(), taskbridge.Stores{Tasks: s, Events: s}, 100); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // some that have not ended, and a stream without a task
		if _, _, err := s.CreateTask(t.Context(), newTask(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendEvent(t.Context(), message(fmt.Sprint("alone-", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(s, func(w *writer) error {
		if err := w.conn.script("ANALYZE"); err != nil {
			return err
		}
		if n, err := w.conn.integer("SELECT count(*) FROM sqlite_stat1"); err != nil || n < 5 {
			t.Errorf("there are statistics of %d indexes, %v", n, err)
		}
		checkPlans(t, w.conn)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func checkPlans(t *testing.T, c *conn) {
	t.Helper()
	for name, texts := range statements() {
		for _, sql := range texts {
			plan := explain(t, c, sql)
			for _, step := range plan {
				if mayScan[name][step] != "" || strings.HasPrefix(step, "SCAN CONSTANT ROW") || strings.HasPrefix(step, "SCAN (subquery-") {
					continue
				}
				if strings.Contains(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") || strings.Contains(step, "AUTOMATIC") {
					t.Errorf("%s: %q in the plan\n\t%s\nof %s", name, step, strings.Join(plan, "\n\t"), sql)
				}
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
