package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"
)

const (
	sqlLease       = "SELECT holder, until FROM leases WHERE name = ?"
	sqlTakeLease   = "INSERT INTO leases (name, holder, until) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until"
	sqlEndLease    = "DELETE FROM leases WHERE name = ? AND holder = ?"
	sqlEndedLeases = "DELETE FROM leases WHERE until <= ?"
)

// AcquireLease implements [taskbridge.Leaser]. An empty name or holder and a ttl
// that is not above zero are refused with [taskbridge.ErrInvalidArgument].
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	r := &acquireLease{name: name, holder: holder, ttl: ttl}
	err := s.ready(ctx)
	switch {
	case err != nil:
	case name == "":
		err = argumentError("name", "must not be empty")
	case holder == "":
		err = argumentError("holder", "must not be empty")
	case ttl <= 0:
		err = argumentError("ttl", "must be above zero")
	default:
		err = s.write(ctx, r)
	}
	if err != nil {
		return false, fmt.Errorf("sqlitestore: acquisition of lease %q: %w", name, err)
	}
	return r.acquired, nil
}

// acquireLease is the request of AcquireLease.
type acquireLease struct {
	operation
	name, holder string
	ttl          time.Duration
	acquired     bool
}

func (r *acquireLease) apply(w *writer) error {
	now := w.store.clock.Now()
	// Leases are few: the ended ones of others are swept out on the way.
	if err := w.conn.exec(sqlEndedLeases, now.UnixMicro()); err != nil {
		return err
	}
	held, err := leaseHolder(w.conn, r.name, now)
	if err != nil {
		return err
	}
	if r.acquired = held == "" || held == r.holder; !r.acquired {
		return nil
	}
	err = w.conn.exec(sqlTakeLease, r.name, r.holder, now.Add(r.ttl).UnixMicro())
	return err
}

func (r *acquireLease) committed(*Store) {}

// ReleaseLease implements [taskbridge.Leaser].
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	if err := s.write(ctx, &releaseLease{name: name, holder: holder}); err != nil {
		return fmt.Errorf("sqlitestore: release of lease %q: %w", name, err)
	}
	return nil
}

// releaseLease is the request of ReleaseLease.
type releaseLease struct {
	operation
	name, holder string
}

func (r *releaseLease) apply(w *writer) error {
	err := w.conn.exec(sqlEndLease, r.name, r.holder)
	return err
}

func (r *releaseLease) committed(*Store) {}

// LeaseHolder implements [taskbridge.Leaser].
func (s *Store) LeaseHolder(ctx context.Context, name string) (holder string, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		holder, err = leaseHolder(c, name, s.clock.Now())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("sqlitestore: holder of lease %q: %w", name, err)
	}
	return holder, nil
}

func leaseHolder(c *conn, name string, now time.Time) (holder string, err error) {
	err = c.query(background, sqlLease, func(row []driver.Value) error {
		if integer(row[1]) > now.UnixMicro() {
			holder = text(row[0])
		}
		return nil
	}, name)
	return holder, err
}
