package taskbridge

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseCursorReadsEventIDsAndNothingElse(t *testing.T) {
	for in, want := range map[string]Cursor{
		"": {}, "0": {}, "0-0": {},
		"1-00000000":                   {1, "00000000"},
		"42-deadbeef":                  {42, "deadbeef"},
		"9223372036854775806-0123abcd": {math.MaxInt64 - 1, "0123abcd"},
	} {
		got, err := ParseCursor(in)
		if err != nil || got != want {
			t.Errorf("ParseCursor(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"rubbish!", "hb-1", "1", "1-", "-1", "-1-deadbeef", "+1-deadbeef", "01-deadbeef", "0-deadbeef", "1-DEADBEEF",
		"1-deadbee", "1-deadbeef0", "1-deadbeef ", " 1-deadbeef", "1-deadbeeg", "1--deadbeef", "1_deadbeef", "00", "0-00",
		"9223372036854775807-deadbeef", "9223372036854775808-deadbeef", "99999999999999999999-deadbeef", "1e3-deadbeef", "\x00", "٣-deadbeef",
	} {
		if got, err := ParseCursor(in); !errors.Is(err, ErrInvalidCursor) {
			t.Errorf("ParseCursor(%q) = %v, %v, want ErrInvalidCursor", in, got, err)
		}
	}
}

func FuzzParseCursorRoundTrips(f *testing.F) {
	for _, seed := range []string{"", "0", "0-0", "1-deadbeef", "007-deadbeef", "rubbish!", "1-deadbeef-2", "9223372036854775807-00000000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err != nil {
			if !errors.Is(err, ErrInvalidCursor) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || again != c {
			t.Fatalf("%q gives %v, which reads back as %v, %v", s, c, again, err)
		}
		if c.Sequence > 0 && c.String() != s {
			t.Fatalf("%q is not the one way to write %v", s, c)
		}
	})
}

func TestEnvelopeHasTheFiveFieldsOnOneLine(t *testing.T) {
	e := Event{
		TaskID: "3ff-abc", Sequence: 7, Tag: "0a1b2c3d", Type: EventMessage,
		CreatedAt: time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC), Attempt: 2,
		Payload: json.RawMessage(`{"message":"<a>\n\u2028"}`),
	}
	const want = `{"type":"TASK_MESSAGE","taskId":"3ff-abc","eventId":"7-0a1b2c3d","createdAt":"2026-03-04T05:06:07.089Z","payload":{"message":"<a>\n\u2028"}}`
	if got := string(e.AppendEnvelope(nil)); got != want {
		t.Errorf("envelope\n got %s\nwant %s", got, want)
	}
	if !json.Valid(e.AppendEnvelope(nil)) {
		t.Error("envelope is not JSON")
	}
}

func TestEventTagTellsContentsApart(t *testing.T) {
	at := time.UnixMicro(1_000_000).UTC()
	base := EventTag(EventMessage, at, 1, []byte(`{"message":"a"}`))
	if len(base) != 8 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Fatalf("tag %q is not eight hex digits", base)
	}
	for name, other := range map[string]string{
		"type":    EventTag(EventProgress, at, 1, []byte(`{"message":"a"}`)),
		"time":    EventTag(EventMessage, at.Add(time.Microsecond), 1, []byte(`{"message":"a"}`)),
		"attempt": EventTag(EventMessage, at, 2, []byte(`{"message":"a"}`)),
		"payload": EventTag(EventMessage, at, 1, []byte(`{"message":"b"}`)),
	} {
		if other == base {
			t.Errorf("another %s gives the same tag", name)
		}
	}
}

func TestTaskIDsAreValidAndCarryTheirBucket(t *testing.T) {
	for range 1000 {
		id := NewTaskID("owner", "request")
		if !ValidTaskID(id) {
			t.Fatalf("%q is not valid", id)
		}
		if want := "094-"; Bucket("owner", "request") != 0x094 || !strings.HasPrefix(id, want) {
			t.Fatalf("%q does not begin with the bucket %03x", id, Bucket("owner", "request"))
		}
	}
	if Bucket("ab", "c") == Bucket("a", "bc") {
		t.Error("the boundary between owner and client request id does not count")
	}
	for _, id := range []string{"", ".a", "-a", "a..b", "a/b", "a b", "ä", strings.Repeat("a", 256), "a\n"} {
		if ValidTaskID(id) {
			t.Errorf("%q is taken for a task id", id)
		}
	}
	for _, id := range []string{"a", "0", "ws", "A.b_c@d-e", strings.Repeat("a", 255)} {
		if !ValidTaskID(id) {
			t.Errorf("%q is not taken for a task id", id)
		}
	}
}

func TestStatusesChangeOnlyForward(t *testing.T) {
	all := []TaskStatus{StatusAccepted, StatusRunning, StatusCompleted, StatusFailed, StatusCancelled}
	allowed := map[[2]TaskStatus]bool{
		{StatusAccepted, StatusRunning}: true, {StatusAccepted, StatusFailed}: true, {StatusAccepted, StatusCancelled}: true,
		{StatusRunning, StatusCompleted}: true, {StatusRunning, StatusFailed}: true, {StatusRunning, StatusCancelled}: true,
	}
	for _, from := range all {
		for _, to := range all {
			if want := from == to || allowed[[2]TaskStatus{from, to}]; from.CanBecome(to) != want {
				t.Errorf("%s to %s: allowed %v, want %v", from, to, !want, want)
			}
		}
	}
	if TaskStatus("").CanBecome("") || TaskStatus("X").CanBecome(StatusRunning) {
		t.Error("an unknown status may change")
	}
}
