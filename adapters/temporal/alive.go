package temporaladapter

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
)

// mostDetails is how many details of a heartbeat are kept.
const mostDetails = 8

// heartbeatDetails are those that the attempt before has left. A heartbeat without
// them would take their place.
func heartbeatDetails(ctx context.Context) []any {
	if !activity.HasHeartbeatDetails(ctx) {
		return nil
	}
	raw, into := make([]converter.RawValue, mostDetails), make([]any, mostDetails)
	for i := range raw {
		into[i] = &raw[i]
	}
	if err := activity.GetHeartbeatDetails(ctx, into...); err != nil {
		return nil
	}
	var details []any
	for _, value := range raw {
		if value.Payload() == nil {
			break
		}
		details = append(details, value)
	}
	return details
}

// keepAlive heartbeats for an activity that stands alone while it waits for TaskBridge
// at its start or end: else an outage that is longer than the heartbeat's time-out
// would use up its attempts, and start the next one beside it. It stops when stop
// returns.
func keepAlive(ctx context.Context, info activity.Info, details func() []any) (stop func()) {
	if info.HeartbeatTimeout == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(max(info.HeartbeatTimeout/3, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				activity.RecordHeartbeat(ctx, details()...)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}

// details are what heartbeats of the attempt say of its steps, or else what the attempt
// before has left.
func (r *Reporter) details(left []any) []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.steps.read {
		return left
	}
	return []any{r.steps.kept}
}
