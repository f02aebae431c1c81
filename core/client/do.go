package client

import (
	"context"
	"errors"
)

// Do creates a task and follows it to its end. It calls each, unless that is
// nil, for every event. A task that has failed or was cancelled is a
// [*TaskError].
//
// If ctx ends, Do does and the task does not: with the same ClientRequestID a
// later Do goes on with it, from its first event.
func (c *Client) Do(ctx context.Context, wish CreateRequest, each func(Event)) (Outcome, error) {
	created, err := c.Create(ctx, wish)
	if err != nil {
		return Outcome{}, err
	}
	for event, err := range c.Follow(ctx, created.TaskID, FollowOptions{}) {
		if err != nil {
			return Outcome{}, err
		}
		if each != nil {
			each(event)
		}
		if event.Terminal() {
			return event.Outcome()
		}
	}
	return Outcome{}, errors.New("the stream has no end") // it ends by a terminal event or an error
}
