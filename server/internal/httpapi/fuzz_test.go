package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// checkRefusal fails unless the error is a refusal of the client's.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	p := problemOf(err, "id")
	if p.status < 400 || p.status > 499 {
		t.Errorf("answered %d %s", p.status, p.code)
	}
}

func FuzzDecodeCreate(f *testing.F) {
	for _, seed := range []struct{ body, contentType, key string }{
		{`{"clientRequestId":"k","taskType":"t","input":{"a":[1,2.50,null]},"metadata":{}}`, "application/json", ""},
		{`{"taskType":"t"}`, "application/json; charset=utf-8", `"quoted \" \\ key"`},
		{`{"clientRequestId":"\ud800","taskType":"\ufffd"}`, "application/json", "k"},
		{`{"clientRequestId":"k","taskType":"t","input":[]}`, "application/json", `"`},
		{`{"clientRequestId":"k","clientRequestId":5,"taskType":"t"}`, "application/json", ""},
		{"{\"clientRequestId\":\"\xff\"}", "application/json", "\xff"},
		{strings.Repeat(`{"a":`, 20_000), "application/json", ""},
		{`null`, "application/json;;", ""},
		{"", "multipart/form-data; boundary=x", ""},
		{`{"clientRequestId":"k","taskType":"t","input":1e999999999}`, "APPLICATION/JSON", ""},
	} {
		f.Add([]byte(seed.body), seed.contentType, seed.key)
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, key string) {
		r := &http.Request{Header: http.Header{"Content-Type": {contentType}}}
		if key != "" {
			r.Header["Idempotency-Key"] = []string{key}
		}
		request, err := decodeCreate(r, body)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if request.ClientRequestID == "" || request.TaskType == "" {
			t.Errorf("accepted without its names: %+v", request)
		}
		if !utf8.ValidString(request.ClientRequestID) || !utf8.ValidString(request.TaskType) {
			t.Errorf("accepted what is no UTF-8: %+v", request)
		}
		for _, raw := range []json.RawMessage{request.Input, request.Metadata} {
			var object map[string]json.RawMessage
			if raw != nil && (json.Unmarshal(raw, &object) != nil || object == nil) {
				t.Errorf("accepted %q for an object", raw)
			}
		}
	})
}

func FuzzDecodeCancel(f *testing.F) {
	for _, seed := range []string{"", " ", "{}", `{"reason":null}`, `{"reason":"x"}`, `{"reason":5}`, "[", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &http.Request{Header: http.Header{"Content-Type": {"application/json"}}}
		reason, err := decodeCancel(r, body)
		if err != nil {
			checkRefusal(t, err)
		} else if !utf8.ValidString(reason) {
			t.Errorf("reason %q", reason)
		}
	})
}

func FuzzDecodeCursors(f *testing.F) {
	for _, seed := range []string{
		"", "0", "0-0", "1-abcdef01", "01-abcdef01", "9223372036854775806-00000000", "9223372036854775807-00000000",
		"hb-1", "rubbish!", "1-ABCDEF01", "1-abcdef0", "-1-abcdef01", "1-abcdef01-", "+1-abcdef01", "\x00", "%zz", "1;2",
	} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, cursor, number, header string) {
		query := url.Values{
			"afterEventId": {cursor}, "lastEventId": {cursor}, "maxEvents": {number}, "waitTimeoutMs": {number},
			"limit": {number}, "gap": {cursor}, "status": {cursor}, "cursor": {cursor},
		}
		for _, raw := range []string{query.Encode(), "afterEventId=" + cursor, "lastEventId=" + cursor + "&gap=error", cursor} {
			r := &http.Request{URL: &url.URL{RawQuery: raw}, Header: http.Header{"Last-Event-Id": {header}, "Prefer": {header}}}
			poll, given, err := decodePoll(r)
			switch {
			case err != nil:
				checkRefusal(t, err)
			case poll.MaxEvents < 1 || poll.MaxEvents > taskbridge.MaxPollEvents || poll.Wait < 0 || poll.Wait > taskbridge.MaxPollWait:
				t.Errorf("accepted %+v", poll)
			case given != nil && poll.After.Sequence > 0 && poll.After.String() != *given:
				t.Errorf("cursor %q is read as %s", *given, poll.After)
			}
			stream, shown, err := decodeStream(r)
			if err != nil {
				checkRefusal(t, err)
			} else if parsed, err := taskbridge.ParseCursor(shown); err != nil || parsed != stream.After {
				t.Errorf("heartbeats would say %q after %s", shown, stream.After)
			}
			if list, err := decodeList(r); err != nil {
				checkRefusal(t, err)
			} else if list.Limit < 1 || list.Limit > taskbridge.MaxListLimit {
				t.Errorf("accepted %+v", list)
			}
			if wait, _ := preferredWait(r.Header); wait < 0 || wait.Seconds() > maxPreferredWait {
				t.Errorf("%q waits %s", header, wait)
			}
		}
		if key, given, err := idempotencyKey(http.Header{"Idempotency-Key": {header}}); err != nil {
			checkRefusal(t, err)
		} else if !given || key == "" || !utf8.ValidString(key) {
			t.Errorf("key %q of %q", key, header)
		}
	})
}
