package openapitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// streamReader checks an event stream while somebody else reads it.
type streamReader struct {
	io.ReadCloser
	contract *Contract
	report   func(block []byte, err error)
	pending  []byte // the block that is not complete yet
	ended    bool   // by a terminal event
}

// Read implements [io.Reader].
func (s *streamReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.pending = append(s.pending, p[:n]...)
	for {
		block, rest, complete := bytes.Cut(s.pending, []byte("\n\n"))
		if !complete {
			break
		}
		if fault := s.check(block); fault != nil {
			s.report(block, fault)
		}
		s.pending = rest
	}
	if err == io.EOF && len(s.pending) > 0 {
		s.report(s.pending, errors.New("the stream ends within an event"))
	}
	return n, err
}

// check reads what stands between two empty lines.
func (s *streamReader) check(block []byte) error {
	if s.ended {
		return errors.New("something follows the terminal event")
	}
	var id, data []byte
	for line := range bytes.Lines(block) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		name, value, _ := bytes.Cut(line, []byte(": "))
		field := map[string]*[]byte{"id": &id, "data": &data}[string(name)]
		switch {
		case line[0] == ':':
		case field == nil:
			return fmt.Errorf("a line %q", line)
		case *field != nil:
			return fmt.Errorf("more than one line %q", name)
		default:
			*field = value
		}
	}
	switch {
	case data == nil && id == nil:
		return nil // comments alone
	case data == nil:
		return errors.New("an id without data")
	}
	if err := s.contract.CheckData(data); err != nil {
		return err
	}
	var event struct {
		Type    string `json:"type"`
		EventID string `json:"eventId"`
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	switch event.Type {
	case "HEARTBEAT":
		if id != nil {
			return errors.New("a heartbeat has an id")
		}
		return nil
	case "TASK_COMPLETED", "TASK_FAILED", "TASK_CANCELLED":
		s.ended = true
	}
	if string(id) != event.EventID {
		return fmt.Errorf("the line has the id %q, its event %q", id, event.EventID)
	}
	return nil
}
