package taskbridge

import (
	"context"
	"errors"
)

// numberedRun is a local run whose reports have ordinals of the caller's.
type numberedRun struct{ *localRun }

var _ NumberedRun = (*numberedRun)(nil)

// errUnnumbered refuses the reports that have no ordinal.
func errUnnumbered() error {
	return argumentErrorf("report", "must be made by Report, under an ordinal, since the claim has an epoch")
}

func (r *numberedRun) Progress(context.Context, Progress) error { return errUnnumbered() }
func (r *numberedRun) Message(context.Context, Message) error   { return errUnnumbered() }
func (r *numberedRun) Token(context.Context, string) error      { return errUnnumbered() }

// Report records reports under their ordinals; see [NumberedRun].
func (r *numberedRun) Report(ctx context.Context, reports []Report) (Reported, error) {
	plan, err := r.lifecycle.plan(reports)
	if err != nil {
		return Reported{}, err
	}
	if err := r.takeTurn(ctx); err != nil {
		return Reported{}, err
	}
	defer r.giveTurn()
	if err := r.ready(ctx); err != nil && (plan.outcome == nil || !errors.Is(err, ErrTaskFinished)) {
		return Reported{}, err
	}
	ref := AttemptRef{TaskID: r.task.ID, Attempt: r.task.Attempt, Producer: r.producer, Numbered: true}
	row, reported, err := r.lifecycle.record(ctx, r.row, ref, reports, plan)
	r.row = row
	switch {
	case errors.Is(err, ErrStaleAttempt), errors.Is(err, ErrStaleProducer), errors.Is(err, ErrTaskFinished):
		r.over(err)
	case err == nil && plan.outcome != nil:
		r.over(ErrTaskFinished)
		r.workers.Wait()
	}
	return reported, err
}
