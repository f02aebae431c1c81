package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// input is what the client of a task asks for.
type input struct {
	Text string `json:"text"`
	// PauseMillis is the time that each word takes, at most a minute.
	PauseMillis int `json:"pauseMillis"`
}

func readInput(raw json.RawMessage) (input, error) {
	var in input
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return in, fmt.Errorf("the input is none of this task's: %w", err)
	}
	if in.Text == "" || in.PauseMillis < 0 || in.PauseMillis > 60_000 {
		return in, errors.New("text must not be empty, and pauseMillis be 0 to 60000")
	}
	return in, nil
}

// countWords is the work: how often each word is in the text. It reports as work
// in the server's own process would.
func countWords(ctx context.Context, run taskbridge.Run) error {
	in, err := readInput(run.Task().Input)
	if err != nil {
		return run.Fail(ctx, taskbridge.Failure{Code: "INVALID_INPUT", Message: err.Error()})
	}
	words, counts := strings.Fields(in.Text), map[string]int{}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for i, word := range words {
		select {
		case <-pause.C:
			pause.Reset(time.Duration(in.PauseMillis) * time.Millisecond)
		case <-run.CancelRequested():
			return run.Cancelled(ctx, fmt.Sprintf("after %d of %d words", i, len(words)))
		case <-run.Done():
			return run.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
		counts[strings.ToLower(word)]++
		if err := run.Progress(ctx, taskbridge.Progress{Percent: 100 * float64(i+1) / float64(len(words)), Message: word}); err != nil {
			return err
		}
	}
	result, err := json.Marshal(counts)
	if err != nil {
		return run.Fail(ctx, taskbridge.Failure{Code: "INTERNAL", Message: err.Error()})
	}
	return run.Complete(ctx, taskbridge.Completion{Result: result})
}
