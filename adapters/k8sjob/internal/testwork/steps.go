package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// say prints a line in one write.
func say(line string) error {
	_, err := os.Stdout.WriteString(line + "\n")
	return err
}

func report(fields map[string]any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return say("::taskbridge " + string(data))
}

// failLine is "CODE" or "CODE,retryable".
func failLine(value string) error {
	code, rest, _ := strings.Cut(value, ",")
	return report(map[string]any{"fail": map[string]any{"code": code, "message": "it said so itself", "retryable": rest == "retryable"}})
}

// progressLines is "N" or "N,PAUSE": N lines, the first at 100/N percent, each with
// its number as the message.
func progressLines(value string) error {
	return repeat(value, func(i, n int) error {
		return report(map[string]any{"progress": float64(i) * 100 / float64(n), "message": strconv.Itoa(i)})
	})
}

// plainLines is "N" or "N,PAUSE".
func plainLines(value string) error {
	return repeat(value, func(i, _ int) error { return say("line " + strconv.Itoa(i)) })
}

// manyBytes is "N" or "N,PAUSE": N MiB in lines of 1 KiB, with a pause after each MiB.
func manyBytes(value string) error {
	line := strings.Repeat("x", 1023)
	return repeat(value, func(_, _ int) error {
		for range 1024 {
			if err := say(line); err != nil {
				return err
			}
		}
		return nil
	})
}

// longLine is "PREFIX,N,SUFFIX": one line, of so many bytes between the two.
func longLine(value string) error {
	prefix, rest, _ := strings.Cut(value, ",")
	count, suffix, _ := strings.Cut(rest, ",")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	return say(prefix + strings.Repeat("z", n) + suffix)
}

// repeat takes "N" or "N,PAUSE" and does something N times, with a pause after each.
func repeat(value string, do func(i, n int) error) error {
	count, rest, paused := strings.Cut(value, ",")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var pause time.Duration
	if paused {
		if pause, err = time.ParseDuration(rest); err != nil {
			return err
		}
	}
	for i := 1; i <= n; i++ {
		if err := do(i, n); err != nil {
			return err
		}
		wait(pause)
	}
	return nil
}

func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// resultOfInput says as the result what was handed over.
func resultOfInput(string) error {
	file, err := os.ReadFile(os.Getenv("TASKBRIDGE_INPUT_FILE"))
	if err != nil {
		return err
	}
	return report(map[string]any{"result": map[string]any{
		"file": json.RawMessage(file), "env": os.Getenv("TASKBRIDGE_INPUT"),
		"taskId": os.Getenv("TASKBRIDGE_TASK_ID"), "claim": os.Getenv("TASKBRIDGE_CLAIM"),
	}})
}

// trap has SIGTERM end the program with the status.
func trap(value string) error {
	status, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		err := say("stopping")
		if err == nil {
			os.Exit(status)
		}
		os.Exit(70)
	}()
	return nil
}

// ignore ignores SIGTERM.
func ignore(string) error {
	signal.Ignore(syscall.SIGTERM)
	return nil
}

func sleep(value string) error {
	d, err := time.ParseDuration(value)
	if err == nil {
		wait(d)
	}
	return err
}

// block waits until something ends the program. (A select of nothing does: with no
// other goroutine the runtime takes it for a deadlock.)
func block(string) error {
	for {
		wait(time.Hour)
	}
}

// get is an address; it returns once it has answered 200, however long that takes.
func get(address string) error {
	for {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, http.NoBody) //nolint:gosec // the address is the test's
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request) //nolint:gosec // the address is the test's
		if err == nil {
			err = response.Body.Close()
		}
		if err == nil && response.StatusCode == http.StatusOK {
			return nil
		}
		wait(50 * time.Millisecond)
	}
}

func exit(value string) error {
	status, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	os.Exit(status)
	return nil
}

// failOnce ends the program with status 1 if the file is not there, and makes it.
func failOnce(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	os.Exit(1)
	return nil
}

// outOfMemory takes memory until there is none.
func outOfMemory(string) error {
	var taken [][]byte
	for {
		block := make([]byte, 8<<20)
		for i := range block {
			block[i] = byte(i) // memory counts once it is written to
		}
		taken = append(taken, block)
		if len(taken) > 1<<10 {
			return fmt.Errorf("there is no limit: %d blocks taken", len(taken))
		}
	}
}
