// Package client talks to a TaskBridge server: it creates tasks once, follows
// them to their end through lost connections and restarts, and cancels them.
//
//	c, err := client.New(client.Options{URL: "https://tasks.example.com", Token: token})
//	...
//	outcome, err := c.Do(ctx, client.CreateRequest{TaskType: "report", Input: input}, nil)
//
// [Client.Do] is [Client.Create] and [Client.Follow] in one. A program that is
// to survive its own restart calls the two by itself, with a ClientRequestID of
// its own, and keeps the id of the last event that it has dealt with as the
// cursor to go on from.
//
// # What is tried again
//
// A broken connection, a 5xx and a 429 may pass and are tried again, with a
// growing and jittered delay and no sooner than Retry-After asks; so is an answer
// that is not the protocol's, a few times. Everything else is final: any other
// 4xx, a 503 TASK_SUBMISSION_ERROR, a redirect (none is followed: the credential
// goes to the server that was named and nowhere else), a certificate that cannot
// be trusted, an answer over the limit, an error of the token source.
//
// # Errors
//
// What the server refuses is an [*Error]. It matches the sentinels of package
// taskbridge with [errors.Is] (taskbridge.ErrTaskNotFound, ErrIdempotencyConflict,
// ErrUnknownTaskType, ErrForbidden, ErrEventGap and so on) and holds their types
// for [errors.As] (*taskbridge.GapError, *taskbridge.RejectionError). No error and
// no line of the log has a credential in it.
package client
