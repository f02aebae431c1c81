package process

import (
	"context"
	"errors"
	"fmt"
)

// KillSurvivors ends what executions of a server that was killed have left
// behind: SIGTERM, the grace, SIGKILL. It returns nil once nothing of them
// lives and their records are removed. The host calls it at its start, before
// its Reconciler runs, so that no work goes on behind a row that says
// EXECUTOR_LOST. Executions of this executor are left alone.
//
// On Linux everything that belongs to an execution is found, as the package
// comment says, even if the server died between the start of the command and
// its record; only a process that has cleared its environment, has lost all
// relatives and whose group's leader has gone is not. On other systems the
// groups whose leader still lives are ended.
//
// If ctx ends first, the rest is sent SIGKILL at once; what does not end even
// then is named in the error and stays on record.
func (e *Executor) KillSurvivors(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("process: kill survivors: %w", err)
	}
	recs, damaged, err := e.records.left()
	if err != nil {
		return fmt.Errorf("process: kill survivors: %w", err)
	}
	for _, err := range damaged {
		e.logger.Warn("record of an execution cannot be read; its processes are found by the claim alone", "error", err)
	}
	if ids := present(recs); len(ids) > 0 {
		search := newSearch(ids...)
		left, err := search.look()
		if err != nil {
			return fmt.Errorf("process: kill survivors: %w", err)
		}
		if len(left) > 0 {
			e.logger.Warn("killing what an earlier server left running", "taskIds", taskIDs(recs), "pids", pids(left))
		}
		grace := e.clock.NewTimer(e.grace)
		defer grace.Stop()
		if err := endProcesses(ctx, search, grace.C(), 0); err != nil {
			return fmt.Errorf("process: kill survivors: %w", errors.Join(err, ctx.Err()))
		}
	}
	var failed error
	for _, rec := range recs {
		failed = errors.Join(failed, e.records.remove(rec.Claim))
	}
	if err := errors.Join(failed, e.records.sweep()); err != nil {
		return fmt.Errorf("process: kill survivors: remove records: %w", err)
	}
	return nil
}

func taskIDs(recs []record) []string {
	var ids []string
	for _, rec := range recs {
		ids = append(ids, rec.TaskID)
	}
	return ids
}
