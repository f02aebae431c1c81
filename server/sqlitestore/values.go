package sqlitestore

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// How values are written. These are part of the file's format: a number that was
// ever used keeps its meaning.
//
// Statuses, event types and tags, of which every row has one, are small numbers.
// A type or a tag that has no number is written as text, in the same column.

var statusCodes = map[taskbridge.TaskStatus]int64{
	taskbridge.StatusAccepted:  1,
	taskbridge.StatusRunning:   2,
	taskbridge.StatusCompleted: 3,
	taskbridge.StatusFailed:    4,
	taskbridge.StatusCancelled: 5,
}

var statusNames = [...]taskbridge.TaskStatus{
	1: taskbridge.StatusAccepted,
	2: taskbridge.StatusRunning,
	3: taskbridge.StatusCompleted,
	4: taskbridge.StatusFailed,
	5: taskbridge.StatusCancelled,
}

func statusName(code int64) (taskbridge.TaskStatus, error) {
	if code < 1 || code >= int64(len(statusNames)) {
		return "", fmt.Errorf("unknown status code %d", code)
	}
	return statusNames[code], nil
}

var eventTypes = [...]taskbridge.EventType{
	1: taskbridge.EventStarted,
	2: taskbridge.EventProgress,
	3: taskbridge.EventMessage,
	4: taskbridge.EventSuspended,
	5: taskbridge.EventActionAccepted,
	6: taskbridge.EventCompleted,
	7: taskbridge.EventFailed,
	8: taskbridge.EventCancelled,
}

func eventTypeValue(t taskbridge.EventType) driver.Value {
	for code, known := range eventTypes {
		if t == known && code > 0 {
			return int64(code)
		}
	}
	return string(t)
}

func eventType(v driver.Value) (taskbridge.EventType, error) {
	switch v := v.(type) {
	case string:
		return taskbridge.EventType(v), nil
	case int64:
		if v > 0 && v < int64(len(eventTypes)) {
			return eventTypes[v], nil
		}
	}
	return "", fmt.Errorf("unknown event type code %v", v)
}

func tagValue(tag string) driver.Value {
	if len(tag) == 8 {
		if n, err := strconv.ParseUint(tag, 16, 32); err == nil && tagText(n) == tag {
			return int64(n)
		}
	}
	return tag
}

func tag(v driver.Value) string {
	if n, ok := v.(int64); ok {
		return tagText(uint64(n))
	}
	return text(v)
}

func tagText(n uint64) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := range b {
		b[i] = digits[n>>(28-4*i)&15]
	}
	return string(b[:])
}

// timeValue is the time in microseconds, NULL for the zero time.
func timeValue(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(v driver.Value) time.Time {
	if n, ok := v.(int64); ok {
		return time.UnixMicro(n).UTC()
	}
	return time.Time{}
}

func boolValue(b bool) driver.Value {
	if b {
		return int64(1)
	}
	return int64(0)
}

// blobValue keeps an absent value apart from NULL, which means "elsewhere".
func blobValue(b []byte) driver.Value {
	if b == nil {
		return []byte{}
	}
	return b
}

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func text(v driver.Value) string {
	s, _ := v.(string)
	return s
}

func blob(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}

// jsonValue is v as JSON, NULL where absent is set. Raw JSON within v stays as it
// is but for white space between its tokens.
func jsonValue(v any, absent bool) (driver.Value, error) {
	if absent {
		return nil, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

func fromJSON(v driver.Value, to any) error {
	if b := blob(v); b != nil {
		return json.Unmarshal(b, to)
	}
	return nil
}
