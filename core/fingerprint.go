package taskbridge

import "encoding/json"

// Fingerprint identifies a request's content under its key: the task type, the
// input compared as JSON (members in any order, numbers by value), and the
// attachments' digests. Metadata does not count. input must be valid JSON.
func Fingerprint(taskType string, input json.RawMessage, attachmentDigests []string) (string, error) {
	panic("not yet")
}
