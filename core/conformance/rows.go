package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// newTask returns a plain ACCEPTED row as the creation service makes it.
func newTask(owner, clientRequestID string) taskbridge.Task {
	return taskbridge.Task{
		ID:              taskbridge.NewTaskID(owner, clientRequestID),
		Owner:           owner,
		ClientRequestID: clientRequestID,
		Fingerprint:     "fingerprint",
		Type:            "type",
		Input:           json.RawMessage(`{}`),
		Metadata:        json.RawMessage(`{}`),
		CreatedAt:       instant,
		UpdatedAt:       instant,
		Revision:        1,
		Status:          taskbridge.StatusAccepted,
	}
}

// writtenOnce names the fields of a row that UpdateTask leaves alone. Every
// other field is changeable.
var writtenOnce = map[string]bool{
	"ID": true, "Owner": true, "ClientRequestID": true, "Fingerprint": true, "Traceparent": true,
	"Type": true, "Input": true, "Metadata": true, "CreatedAt": true,
}

// filledTask returns a row with every field set to a value of its own, found by
// reflection, so that no field of a row can be forgotten by a store. Fields with
// a vocabulary (the status, say) have a legal value.
func filledTask(owner, clientRequestID string, seed int64) taskbridge.Task {
	var task taskbridge.Task
	n := seed * 1000
	fill(reflect.ValueOf(&task).Elem(), "Task", &n)
	task.ID = taskbridge.NewTaskID(owner, clientRequestID)
	task.Owner, task.ClientRequestID = owner, clientRequestID
	task.Revision = 1
	return task
}

// vocabulary has the legal values of string types that are enumerations.
var vocabulary = map[reflect.Type]string{
	reflect.TypeFor[taskbridge.TaskStatus]():      string(taskbridge.StatusRunning),
	reflect.TypeFor[taskbridge.SubmissionState](): string(taskbridge.SubmissionClaimed),
	reflect.TypeFor[taskbridge.SuspensionKind]():  string(taskbridge.SuspendExternalConfirmation),
}

// fill sets v and all below it to values that are not zero, each different. It
// panics on a type that it does not know: it must be taught new ones.
func fill(v reflect.Value, path string, n *int64) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(at(*n)))
		return
	case json.RawMessage:
		// Characters that encoders are fond of rewriting.
		v.SetBytes(fmt.Appendf(nil, `{"%s":%d,"odd":"<&>\u00e9é\u2028"}`, path, *n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		switch word, ok := vocabulary[v.Type()]; {
		case ok:
			v.SetString(word)
		case v.Type() == reflect.TypeFor[string]():
			v.SetString(fmt.Sprintf("%s %d <&> é", path, *n))
		default:
			panic("conformance: no legal value is known for " + v.Type().String() + " at " + path)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(*n)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), path, n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), fmt.Sprintf("%s[%d]", path, i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), path+"."+v.Type().Field(i).Name, n)
		}
	default:
		panic("conformance: cannot fill " + v.Type().String() + " at " + path)
	}
}

// differences says where got differs from want, a line each. Times must be
// equal and in UTC, raw JSON the same bytes and nil where nil was meant; of
// other slices an empty one is as good as nil.
func differences(want, got any) []string {
	var found []string
	compare(reflect.ValueOf(want), reflect.ValueOf(got), reflect.TypeOf(want).Name(), &found)
	return found
}

func compare(want, got reflect.Value, path string, found *[]string) {
	differ := func(w, g any) { *found = append(*found, fmt.Sprintf("%s is %v, want %v", path, g, w)) }
	switch w := want.Interface().(type) {
	case time.Time:
		g := got.Interface().(time.Time)
		if !w.Equal(g) {
			differ(w, g)
		} else if g.Location().String() != "UTC" {
			*found = append(*found, fmt.Sprintf("%s is in the time zone %s, want UTC", path, g.Location()))
		}
		return
	case json.RawMessage:
		g := got.Interface().(json.RawMessage)
		if !bytes.Equal(w, g) || (w == nil) != (g == nil) {
			differ(abridged(w), abridged(g))
		}
		return
	}
	switch want.Kind() {
	case reflect.Pointer:
		switch {
		case want.IsNil() != got.IsNil():
			differ(want.Interface(), got.Interface())
		case !want.IsNil():
			compare(want.Elem(), got.Elem(), path, found)
		}
	case reflect.Slice:
		if want.Len() != got.Len() {
			differ(want.Interface(), got.Interface())
			return
		}
		for i := range want.Len() {
			compare(want.Index(i), got.Index(i), fmt.Sprintf("%s[%d]", path, i), found)
		}
	case reflect.Struct:
		for i := range want.NumField() {
			compare(want.Field(i), got.Field(i), path+"."+want.Type().Field(i).Name, found)
		}
	default:
		if want.Interface() != got.Interface() {
			differ(want.Interface(), got.Interface())
		}
	}
}

// abridged makes raw JSON fit to be read in a failure.
func abridged(raw json.RawMessage) string {
	if raw == nil {
		return "nil"
	}
	if len(raw) > 200 {
		return fmt.Sprintf("%s... (%d bytes)", raw[:200], len(raw))
	}
	return string(raw)
}

// same fails the test where got differs from want.
func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if found := differences(want, got); len(found) > 0 {
		t.Errorf("%s:\n\t%s", what, strings.Join(found, "\n\t"))
	}
}

// scribble writes over every slice and pointer that the row refers to.
func scribble(task *taskbridge.Task) {
	for _, raw := range []json.RawMessage{task.Input, task.Metadata, task.Terminal} {
		scribbleBytes(raw)
	}
	for i := range task.SuspendIDs {
		task.SuspendIDs[i] = "scribbled"
	}
	if s := task.Suspension; s != nil {
		scribbleBytes(s.UIHints)
		scribbleBytes(s.Interaction)
		for i := range s.AllowedActions {
			s.AllowedActions[i] = "scribbled"
		}
		if s.ExpiresAt != nil {
			*s.ExpiresAt = time.Time{}
		}
		s.SuspendID = "scribbled"
	}
}

func scribbleBytes(raw []byte) {
	for i := range raw {
		raw[i] = '#'
	}
}

// jsonOfSize returns a JSON object of exactly that many bytes, 32 or more.
func jsonOfSize(key string, size int) json.RawMessage {
	const pattern = "0123456789abcdefghijklmnopqrstuvwxyz"
	head := fmt.Sprintf(`{"%s":"`, key)
	body := strings.Repeat(pattern, size/len(pattern)+1)[:size-len(head)-2]
	return json.RawMessage(head + body + `"}`)
}

// oddNames are names that a store must keep apart and give back as they are:
// 1 to 255 bytes of UTF-8 without control characters.
func oddNames() []string {
	return []string{
		"a", "A", " a", "a ", "aa",
		`it's "quoted" \ and /`,
		"% _ ? $1 :name ; -- /* */",
		"a:b|c,d.e*f[g]{h}#i",
		"NULL", "0", "1e3", "-",
		"<script>&amp;</script>",
		"naïve 雪 \U0001F642", "e\u0301", "é",
		"\u2028\u2029\ufeff",
		strings.Repeat("é", 127) + "x",
		strings.Repeat("x", 255),
		strings.Repeat("x", 254) + "y",
	}
}

// unmarshal decodes JSON that must be sound.
func unmarshal(t *testing.T, raw json.RawMessage, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
}
