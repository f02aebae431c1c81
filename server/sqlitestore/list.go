package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// ListTasks implements [taskbridge.TaskRegistry]. A limit below 1 is refused with
// [taskbridge.ErrInvalidArgument].
//
// A page costs the same however many rows there are, but for query.Types: rows
// of other types are passed over one by one.
func (s *Store) ListTasks(ctx context.Context, query taskbridge.TaskQuery) ([]taskbridge.Task, error) {
	tasks, err := s.list(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: list of tasks: %w", err)
	}
	return tasks, nil
}

func (s *Store) list(ctx context.Context, query taskbridge.TaskQuery) (tasks []taskbridge.Task, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if query.Limit < 1 {
		return nil, argumentError("limit", "must be 1 or more")
	}
	sql, values, err := listQuery(query)
	if err != nil || sql == "" {
		return nil, err
	}
	err = s.read(ctx, func(c *conn) error {
		return c.query(ctx, sql, func(row []driver.Value) error {
			task, err := listedTask(row)
			task.Terminal = blob(row[len(row)-1])
			tasks = append(tasks, task)
			return err
		}, values...)
	})
	if err != nil {
		return nil, err
	}
	return tasks, nil
}

// listQuery is the statement of a list and its arguments; no statement where
// nothing can match.
//
// It merges the ranges of the statuses, each in the order of an index that begins
// with (owner and) status. The two bounds of a query, in age and in place, are
// one: the lower of the two.
func listQuery(query taskbridge.TaskQuery) (sql string, values []driver.Value, err error) {
	var codes []int64
	for status, code := range statusCodes {
		if len(query.Statuses) == 0 || slices.Contains(query.Statuses, status) {
			codes = append(codes, code)
		}
	}
	if len(codes) == 0 {
		return "", nil, nil
	}
	slices.Sort(codes)

	types, err := jsonValue(query.Types, len(query.Types) == 0)
	if err != nil {
		return "", nil, err
	}
	createdAt, id := listBound(query)
	return listStatement(codes, !query.AnyOwner, types != nil),
		[]driver.Value{int64(query.Limit), createdAt, id, query.Owner, typesText(types)}, nil
}

// typesText is the JSON as text, which is what SQLite's functions take.
func typesText(types driver.Value) driver.Value {
	if types == nil {
		return nil
	}
	return string(blob(types))
}

// listBound is the place in the order of the list that all rows must be behind.
func listBound(query taskbridge.TaskQuery) (createdAt int64, id string) {
	createdAt = math.MaxInt64
	if !query.CreatedBefore.IsZero() {
		// Rows have whole microseconds: before 1.5 µs means 1 µs and less.
		createdAt = query.CreatedBefore.Add(time.Microsecond - 1).UnixMicro()
	}
	if after := query.After; !after.IsZero() && after.CreatedAt.UnixMicro() < createdAt {
		createdAt, id = after.CreatedAt.UnixMicro(), after.TaskID
	}
	return createdAt, id
}

// listStatement is the text for a set of statuses. The parameters are the limit,
// the bound's two parts, the owner and the types as JSON.
func listStatement(codes []int64, byOwner, byType bool) string {
	var b strings.Builder
	for i, code := range codes {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		terminal := "t.terminal"
		if code == statusCodes[taskbridge.StatusCompleted] {
			terminal = "NULL" // a result may be large
		}
		fmt.Fprintf(&b, "SELECT %s, %s AS terminal FROM tasks t WHERE status = %d AND (created_at, id) < (?2, ?3)", listedColumns, terminal, code)
		if byOwner {
			b.WriteString(" AND owner = ?4")
		}
		if byType {
			b.WriteString(" AND type IN (SELECT value FROM json_each(?5))")
		}
	}
	b.WriteString(" ORDER BY created_at DESC, id DESC LIMIT ?1")
	return b.String()
}
