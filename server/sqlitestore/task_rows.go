package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"strings"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// inlineDocuments is up to how many bytes input and metadata together are kept
// in the task's row, about a page of the file.
const inlineDocuments = 4096

// The columns of a task's row, in the order of the functions below.
const (
	onceColumns = "id, owner, client_request_id, fingerprint, type, traceparent, created_at"
	indexed     = "status, due_submission, due_cancellation, due_stream, due_inspection, due_retention"
	changeable  = "revision, updated_at, started_at, finished_at, " +
		"attempt, claim, attempt_started_at, starts, controls, attempt_control, suspend_control, " +
		"cancel_requested_at, cancel_reason, cancel_tries, " +
		"submission_state, submission_lease_until, submission_deadline, submission_tries, submission_barred, submission_executor_missing_since, " +
		"instance, suspension, suspend_ids, past_claims"
	metadataColumn = "coalesce(t.metadata, (SELECT d.metadata FROM task_documents d WHERE d.task_no = t.task_no))"
	inputColumn    = "coalesce(t.input, (SELECT d.input FROM task_documents d WHERE d.task_no = t.task_no))"

	listedColumns = onceColumns + ", " + indexed + ", " + changeable + ", " + metadataColumn
	allColumns    = listedColumns + ", " + inputColumn + ", t.terminal"
)

const (
	sqlTaskByID    = "SELECT " + allColumns + " FROM tasks t WHERE t.id = ?"
	sqlTaskByKey   = "SELECT " + allColumns + " FROM tasks t WHERE t.owner = ? AND t.client_request_id = ?"
	sqlTaskState   = "SELECT task_no, revision, " + indexed + " FROM tasks WHERE id = ?"
	sqlInsertAside = "INSERT INTO task_documents (task_no, metadata, input) VALUES (?, ?, ?)"
)

var (
	sqlInsertTask = fmt.Sprintf(
		"INSERT INTO tasks (task_no, %s, %s, %s, terminal, metadata, input) VALUES (?%s) ON CONFLICT DO NOTHING",
		onceColumns, indexed, changeable, strings.Repeat(", ?", countOnce+countIndexed+countChangeable+3))
	sqlUpdateTask = updateStatements()

	sqlDueTasks = map[taskbridge.DueKind]string{
		taskbridge.DueSubmission:   dueQuery("due_submission"),
		taskbridge.DueCancellation: dueQuery("due_cancellation"),
		taskbridge.DueStream:       dueQuery("due_stream"),
		taskbridge.DueInspection:   dueQuery("due_inspection"),
		taskbridge.DueRetention:    dueQuery("due_retention"),
		taskbridge.DueDeletion:     "SELECT task_id FROM tombstones WHERE due <= ? ORDER BY due LIMIT ?",
	}

	countOnce       = strings.Count(onceColumns, ",") + 1
	countIndexed    = strings.Count(indexed, ",") + 1
	countChangeable = strings.Count(changeable, ",") + 1
)

func dueQuery(column string) string {
	return fmt.Sprintf("SELECT id FROM tasks WHERE %[1]s <= ? AND %[1]s IS NOT NULL ORDER BY %[1]s LIMIT ?", column)
}

// updateStatements has one text for each set of indexed columns that an update
// may change, the set as a bit mask: SQLite takes a row out of an index and puts
// it in again for every column of the index that is set, changed or not.
func updateStatements() (texts [1 << 6]string) {
	names := strings.Split(indexed, ", ")
	for set := range texts {
		columns := strings.Split(changeable, ", ")
		columns = append(columns, "terminal")
		for i, name := range names {
			if set>>i&1 == 1 {
				columns = append(columns, name)
			}
		}
		texts[set] = "UPDATE tasks SET " + strings.Join(columns, " = ?, ") + " = ? WHERE task_no = ?"
	}
	return texts
}

// indexedValues are the indexed columns, in their order.
func indexedValues(t taskbridge.Task) [6]driver.Value {
	return [6]driver.Value{
		statusCodes[t.Status],
		timeValue(t.Due.Submission), timeValue(t.Due.Cancellation), timeValue(t.Due.Stream), timeValue(t.Due.Inspection),
		timeValue(t.Due.Retention),
	}
}

// taskState is what an update asks about the row that it replaces.
type taskState struct {
	no       int64 // 0: there is no row
	revision int64
	indexed  [6]driver.Value
}

// task is the row as far as [taskbridge.Task.CheckUpdate] looks at it.
func (s taskState) task() (t taskbridge.Task, err error) {
	t.Revision = s.revision
	t.Status, err = statusName(integer(s.indexed[0]))
	return t, err
}

// taskState returns the state of a row, from memory or from the file.
func (w *writer) taskState(taskID string) (s taskState, err error) {
	if s, ok := w.rows.get(taskID); ok {
		return s, nil
	}
	err = w.conn.query(background, sqlTaskState, func(row []driver.Value) error {
		s.no, s.revision = integer(row[0]), integer(row[1])
		copy(s.indexed[:], row[2:])
		return nil
	}, taskID)
	if err == nil && s.no != 0 {
		w.rows.put(taskID, s)
	}
	return s, err
}

// insertTask inserts the row unless its key or its id is there already.
func (w *writer) insertTask(no int64, t taskbridge.Task) (bool, error) {
	s, err := w.conn.statement(sqlInsertTask)
	if err != nil {
		return false, err
	}
	s.bind(no, t.ID, t.Owner, t.ClientRequestID, t.Fingerprint, t.Type, t.Traceparent, t.CreatedAt.UnixMicro())
	values := indexedValues(t)
	s.add(values[:]...)
	if err := bindChangeable(s, t); err != nil {
		return false, err
	}
	aside := len(t.Input)+len(t.Metadata) > inlineDocuments
	if aside {
		s.add(nil, nil)
	} else {
		s.add(blobValue(t.Metadata), blobValue(t.Input))
	}
	changed, err := s.run()
	if err != nil || changed == 0 {
		return false, err
	}
	if aside {
		err = w.conn.exec(sqlInsertAside, no, blobValue(t.Metadata), blobValue(t.Input))
	}
	w.rows.put(t.ID, taskState{no, t.Revision, values})
	return true, err
}

// writeTask replaces the changeable columns of the row, whose state was before,
// and raises the revision.
func (w *writer) writeTask(before taskState, t taskbridge.Task) error {
	values, set := indexedValues(t), 0
	for i, v := range values {
		if v != before.indexed[i] {
			set |= 1 << i
		}
	}
	s, err := w.conn.statement(sqlUpdateTask[set])
	if err != nil {
		return err
	}
	t.Revision++
	s.bind()
	if err := bindChangeable(s, t); err != nil {
		return err
	}
	for i, v := range values {
		if set>>i&1 == 1 {
			s.add(v)
		}
	}
	s.add(before.no)
	changed, err := s.run()
	if err == nil && changed != 1 {
		err = fmt.Errorf("the update of row %d changed %d rows", before.no, changed)
	}
	w.rows.put(t.ID, taskState{before.no, t.Revision, values})
	return err
}

// bindChangeable adds the changeable columns and the terminal payload.
func bindChangeable(s *statement, t taskbridge.Task) error {
	suspension, err := jsonValue(t.Suspension, t.Suspension == nil)
	if err != nil {
		return fmt.Errorf("suspension: %w", err)
	}
	suspendIDs, err := jsonValue(t.SuspendIDs, len(t.SuspendIDs) == 0)
	if err != nil {
		return fmt.Errorf("suspend ids: %w", err)
	}
	pastClaims, err := jsonValue(t.PastClaims, len(t.PastClaims) == 0)
	if err != nil {
		return fmt.Errorf("past claims: %w", err)
	}
	s.add(
		t.Revision, timeValue(t.UpdatedAt), timeValue(t.StartedAt), timeValue(t.FinishedAt),
		t.Attempt, t.Claim, timeValue(t.AttemptStartedAt), t.Starts, t.Controls, t.AttemptControl, t.SuspendControl,
		timeValue(t.Cancellation.RequestedAt), t.Cancellation.Reason, int64(t.Cancellation.Tries),
		string(t.Submission.State), timeValue(t.Submission.LeaseUntil), timeValue(t.Submission.Deadline),
		int64(t.Submission.Tries), boolValue(t.Submission.Barred), timeValue(t.Submission.ExecutorMissingSince),
		t.Instance, suspension, suspendIDs, pastClaims, []byte(t.Terminal),
	)
	return nil
}

// selectTask returns the row that the query finds, with all columns.
func selectTask(c *conn, sql string, values ...driver.Value) (t taskbridge.Task, found bool, err error) {
	err = c.query(background, sql, func(row []driver.Value) (err error) {
		found = true
		t, err = listedTask(row)
		if err == nil {
			at := countOnce + countIndexed + countChangeable + 1
			t.Input, t.Terminal = blob(row[at]), blob(row[at+1])
		}
		return err
	}, values...)
	return t, found, err
}

// listedTask reads a row of the listed columns.
func listedTask(row []driver.Value) (t taskbridge.Task, err error) {
	at := -1
	next := func() driver.Value { at++; return row[at] }

	t.ID, t.Owner, t.ClientRequestID = text(next()), text(next()), text(next())
	t.Fingerprint, t.Type, t.Traceparent, t.CreatedAt = text(next()), text(next()), text(next()), timeOf(next())

	if t.Status, err = statusName(integer(next())); err != nil {
		return t, fmt.Errorf("task %s: %w", t.ID, err)
	}
	t.Due = taskbridge.Due{
		Submission: timeOf(next()), Cancellation: timeOf(next()), Stream: timeOf(next()), Inspection: timeOf(next()),
		Retention: timeOf(next()),
	}

	t.Revision = integer(next())
	t.UpdatedAt, t.StartedAt, t.FinishedAt = timeOf(next()), timeOf(next()), timeOf(next())
	t.Attempt, t.Claim, t.AttemptStartedAt = integer(next()), text(next()), timeOf(next())
	t.Starts, t.Controls = integer(next()), integer(next())
	t.AttemptControl, t.SuspendControl = integer(next()), integer(next())
	t.Cancellation = taskbridge.Cancellation{
		RequestedAt: timeOf(next()), Reason: text(next()), Tries: int(integer(next())),
	}
	t.Submission = taskbridge.Submission{
		State: taskbridge.SubmissionState(text(next())), LeaseUntil: timeOf(next()), Deadline: timeOf(next()),
		Tries: int(integer(next())), Barred: integer(next()) != 0, ExecutorMissingSince: timeOf(next()),
	}
	t.Instance = text(next())
	if err := fromJSON(next(), &t.Suspension); err != nil {
		return t, fmt.Errorf("task %s: suspension: %w", t.ID, err)
	}
	if err := fromJSON(next(), &t.SuspendIDs); err != nil {
		return t, fmt.Errorf("task %s: suspend ids: %w", t.ID, err)
	}
	if err := fromJSON(next(), &t.PastClaims); err != nil {
		return t, fmt.Errorf("task %s: past claims: %w", t.ID, err)
	}
	t.Metadata = blob(next())
	return t, nil
}
