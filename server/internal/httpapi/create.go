package httpapi

import (
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func (a *API) createTask(c *call) error {
	request, err := decodeCreate(c.r, c.body)
	if err != nil {
		return err
	}
	request.Traceparent = a.opts.Traceparent(c.r) // one that is none does no harm
	ctx, cancel := a.timeLimit(c, 0)
	defer cancel()
	result, err := a.opts.Bridge.Creation.CreateTask(ctx, c.principal, request)
	if err != nil {
		return err
	}
	// What a new task has become since it was accepted is a matter of luck: the
	// answer does not depend on it.
	status, taskStatus := http.StatusCreated, taskbridge.StatusAccepted
	if result.Deduplicated {
		status, taskStatus = http.StatusOK, result.Task.Status
	}
	return a.answer(c, status, struct {
		TaskID          string                `json:"taskId"`
		Status          taskbridge.TaskStatus `json:"status"`
		ClientRequestID string                `json:"clientRequestId"`
		Deduplicated    bool                  `json:"deduplicated"`
	}{result.Task.ID, taskStatus, result.Task.ClientRequestID, result.Deduplicated})
}

// decodeCreate reads the body of a creation. Members that it does not know are
// left alone, since a newer or older client may send more.
func decodeCreate(r *http.Request, body []byte) (taskbridge.CreateTaskRequest, error) {
	var request taskbridge.CreateTaskRequest
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType == "multipart/form-data" {
		return request, invalidRequest("attachments (multipart/form-data) are not supported yet; send application/json")
	}
	if err := requireJSON(r); err != nil {
		return request, err
	}
	members, err := decodeObject(body)
	if err != nil {
		return request, err
	}
	if request.ClientRequestID, err = stringMember(members, "clientRequestId"); err != nil {
		return request, err
	}
	if request.TaskType, err = stringMember(members, "taskType"); err != nil {
		return request, err
	}
	if request.Input, err = objectMember(members, "input"); err != nil {
		return request, err
	}
	if request.Metadata, err = objectMember(members, "metadata"); err != nil {
		return request, err
	}

	key, given, err := idempotencyKey(r.Header)
	switch {
	case err != nil:
		return request, err
	case given && request.ClientRequestID == "" && members["clientRequestId"] == nil:
		request.ClientRequestID = key
	case given && request.ClientRequestID != key:
		return request, invalidRequest("the Idempotency-Key header and clientRequestId differ")
	}
	switch {
	case request.ClientRequestID == "":
		return request, missingField("clientRequestId", "must not be missing or empty")
	case request.TaskType == "":
		return request, missingField("taskType", "must not be missing or empty")
	}
	return request, nil
}

// idempotencyKey reads the header of that name, a quoted string or bare text.
func idempotencyKey(header http.Header) (key string, given bool, err error) {
	values := header.Values("Idempotency-Key")
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", false, invalidRequest("there is more than one Idempotency-Key header")
	}
	key = strings.TrimSpace(values[0])
	if quoted, ok := strings.CutPrefix(key, `"`); ok {
		if key, ok = unquote(quoted); !ok {
			return "", false, invalidRequest("the Idempotency-Key header is not a quoted string")
		}
	}
	switch {
	case key == "":
		return "", false, invalidRequest("the Idempotency-Key header is empty")
	case !utf8.ValidString(key):
		return "", false, invalidRequest("the Idempotency-Key header is not UTF-8")
	}
	return key, true, nil
}

// unquote reads what follows the opening quote of a string as RFC 8941 has it:
// a backslash stands before a quote or a backslash, and nothing follows the end.
func unquote(s string) (string, bool) {
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return text.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		text.WriteByte(s[i])
	}
	return "", false
}
