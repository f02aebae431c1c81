package sqlitestore

import (
	"errors"
	"fmt"
)

// migrations bring a file from each schema to the next; the schema's number is
// the file's user_version. One that was ever released is not changed.
var migrations = []string{
	// 1: tasks, their streams and the leases.
	//
	// A task's small values come first in its row and the documents last, so that
	// a list need not walk through them. Input and metadata that are not small
	// are kept aside: an update writes the whole row again.
	`
	CREATE TABLE tasks (
		task_no                INTEGER PRIMARY KEY,
		id                     TEXT NOT NULL,
		owner                  TEXT NOT NULL,
		client_request_id      TEXT NOT NULL,
		fingerprint            TEXT NOT NULL,
		type                   TEXT NOT NULL,
		traceparent            TEXT NOT NULL,
		created_at             INTEGER NOT NULL,
		revision               INTEGER NOT NULL,
		status                 INTEGER NOT NULL,
		updated_at             INTEGER,
		started_at             INTEGER,
		finished_at            INTEGER,
		attempt                INTEGER NOT NULL,
		claim                  TEXT NOT NULL,
		attempt_started_at     INTEGER,
		starts                 INTEGER NOT NULL,
		controls               INTEGER NOT NULL,
		attempt_control        INTEGER NOT NULL,
		suspend_control        INTEGER NOT NULL,
		cancel_requested_at    INTEGER,
		cancel_reason          TEXT NOT NULL,
		cancel_tries           INTEGER NOT NULL,
		submission_state       TEXT NOT NULL,
		submission_lease_until INTEGER,
		submission_deadline    INTEGER,
		submission_tries       INTEGER NOT NULL,
		submission_barred      INTEGER NOT NULL,
		instance               TEXT NOT NULL,
		due_submission         INTEGER,
		due_cancellation       INTEGER,
		due_stream             INTEGER,
		due_inspection         INTEGER,
		due_retention          INTEGER,
		suspension             BLOB,
		suspend_ids            BLOB,
		past_claims            BLOB,
		metadata               BLOB, -- NULL: in task_documents
		input                  BLOB, -- NULL: in task_documents
		terminal               BLOB
	) STRICT;

	CREATE UNIQUE INDEX tasks_id ON tasks (id);
	CREATE UNIQUE INDEX tasks_key ON tasks (owner, client_request_id);

	-- Lists are merged from one range a status, so that a page costs the same
	-- whatever the statuses asked for and however many rows have others.
	CREATE INDEX tasks_owner ON tasks (owner, status, created_at, id);
	CREATE INDEX tasks_status ON tasks (status, created_at, id);

	CREATE INDEX tasks_due_submission ON tasks (due_submission) WHERE due_submission IS NOT NULL;
	CREATE INDEX tasks_due_cancellation ON tasks (due_cancellation) WHERE due_cancellation IS NOT NULL;
	CREATE INDEX tasks_due_stream ON tasks (due_stream) WHERE due_stream IS NOT NULL;
	CREATE INDEX tasks_due_inspection ON tasks (due_inspection) WHERE due_inspection IS NOT NULL;
	CREATE INDEX tasks_due_retention ON tasks (due_retention) WHERE due_retention IS NOT NULL;

	CREATE TABLE task_documents (
		task_no  INTEGER PRIMARY KEY,
		metadata BLOB NOT NULL,
		input    BLOB NOT NULL
	) STRICT;

	-- Of a retired task only this is left, until its events are deleted. Its
	-- number is not given to another task before.
	CREATE TABLE tombstones (
		task_id   TEXT PRIMARY KEY,
		stream_no INTEGER NOT NULL,
		due       INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE INDEX tombstones_due ON tombstones (due);

	-- A stream has the number of its task, or, if it began without one, a negative
	-- number from here, for good.
	CREATE TABLE streams (
		task_id   TEXT PRIMARY KEY,
		stream_no INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;

	-- event_no is the stream's number and the event's sequence number in one (see
	-- eventNumber): a stream's events lie together and in order.
	-- state is what the stream was after the event (see streamHead), so that an
	-- append writes this row and nothing else.
	CREATE TABLE events (
		event_no   INTEGER PRIMARY KEY,
		type       ANY NOT NULL,
		created_at INTEGER NOT NULL,
		attempt    INTEGER NOT NULL,
		tag        ANY NOT NULL,
		state      BLOB NOT NULL,
		payload    BLOB NOT NULL
	) STRICT;

	CREATE TABLE leases (
		name   TEXT PRIMARY KEY,
		holder TEXT NOT NULL,
		until  INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	`,
	// 2: since when a task's type is found without an executor. The column stands
	// behind the documents, as it must, and is NULL in almost every row.
	`ALTER TABLE tasks ADD COLUMN submission_executor_missing_since INTEGER`,
}

const (
	sqlSchemaVersion = "PRAGMA user_version"
	sqlCountTables   = "SELECT count(*) FROM sqlite_schema"
	sqlDropLeases    = "DELETE FROM leases"
)

// prepareDatabase brings the file to the schema of this program and drops what a
// process that has ended left in it.
func prepareDatabase(c *conn) error {
	version, err := c.integer(sqlSchemaVersion)
	if err != nil {
		return fmt.Errorf("read of the schema's version: %w", err)
	}
	if version > int64(len(migrations)) {
		return fmt.Errorf("the database was written by a newer taskbridge: it has schema %d, this one knows schemas up to %d", version, len(migrations))
	}
	if version == 0 {
		tables, err := c.integer(sqlCountTables)
		if err != nil {
			return fmt.Errorf("read of the schema: %w", err)
		}
		if tables > 0 {
			return errors.New("taskbridge.db is no database of taskbridge: it has tables but no schema version")
		}
	}
	for ; version < int64(len(migrations)); version++ {
		if err := migrate(c, version+1); err != nil {
			return fmt.Errorf("migration to schema %d: %w", version+1, err)
		}
	}
	if err := c.exec(sqlDropLeases); err != nil {
		return fmt.Errorf("drop of old leases: %w", err)
	}
	return nil
}

// migrate runs one migration and notes it, or leaves the file as it was.
func migrate(c *conn, version int64) error {
	err := c.script(fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", migrations[version-1], version))
	if err != nil {
		return errors.Join(err, c.rollback())
	}
	return nil
}
