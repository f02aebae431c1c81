package httpapi

import (
	"bytes"
	"net/http"
)

func (a *API) cancelTask(c *call) error {
	reason, err := decodeCancel(c.r, c.body)
	if err != nil {
		return err
	}
	ctx, cancel := a.timeLimit(c, 0)
	defer cancel()
	task, alreadyTerminal, err := a.opts.Bridge.Cancellation.CancelTask(ctx, c.principal, c.taskID, reason)
	if err != nil {
		return err
	}
	status := "CANCELLATION_REQUESTED"
	if alreadyTerminal {
		status = "ALREADY_TERMINAL"
	}
	return a.answer(c, http.StatusAccepted, struct {
		TaskID string `json:"taskId"`
		Status string `json:"status"`
	}{task.ID, status})
}

// decodeCancel returns the reason; "" for a body without one, or no body.
func decodeCancel(r *http.Request, body []byte) (string, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", nil
	}
	if err := requireJSON(r); err != nil {
		return "", err
	}
	members, err := decodeObject(body)
	if err != nil {
		return "", err
	}
	return stringMember(members, "reason")
}
