package taskbridge

import (
	"errors"
	"log/slog"
)

// base is what the services share.
type base struct {
	journal    *journal
	executors  *ExecutorRouter
	ownership  OwnershipPolicy
	limits     Limits
	submission SubmissionOptions
	clock      Clock
	logger     *slog.Logger
	observer   Observer
}

func newBase(opts Options) (*base, error) {
	switch {
	case opts.Stores.Tasks == nil || opts.Stores.Events == nil:
		return nil, errors.New("taskbridge: Options.Stores needs a TaskRegistry and an EventStore")
	case opts.Executors == nil:
		return nil, errors.New("taskbridge: Options.Executors must not be nil")
	}
	submission, err := opts.Submission.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &base{
		executors:  opts.Executors,
		ownership:  opts.Ownership,
		limits:     opts.Limits.withDefaults(),
		submission: submission,
		clock:      clockOrSystem(opts.Clock),
		logger:     opts.Logger,
		observer:   opts.Observer,
	}
	if b.ownership == nil {
		b.ownership = OwnerOnly{}
	}
	if b.logger == nil {
		b.logger = slog.New(slog.DiscardHandler)
	}
	b.journal = newJournal(opts.Stores, b.clock, b.observer)
	return b, nil
}
