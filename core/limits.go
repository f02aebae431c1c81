package taskbridge

import (
	"unicode/utf8"
)

// Limits bounds what one task may hold. A zero field means the default; all are
// in bytes unless said otherwise.
type Limits struct {
	// EventPayload bounds an event's payload; default 32 KiB.
	EventPayload int
	// TerminalPayload bounds the payload of a terminal event; default 256 KiB.
	TerminalPayload int
	// Input bounds a task's input; default 1 MiB.
	Input int
	// Metadata bounds a task's metadata; default 64 KiB.
	Metadata int
	// StreamEvents is how many events progress and messages may fill; default
	// 100,000. Control events have room beyond it, the terminal one always.
	StreamEvents int64
	// Suspensions is how often a task may suspend; default 1,000.
	Suspensions int
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		EventPayload:    32 << 10,
		TerminalPayload: 256 << 10,
		Input:           1 << 20,
		Metadata:        64 << 10,
		StreamEvents:    100_000,
		Suspensions:     1_000,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.EventPayload == 0 {
		l.EventPayload = d.EventPayload
	}
	if l.TerminalPayload == 0 {
		l.TerminalPayload = d.TerminalPayload
	}
	if l.Input == 0 {
		l.Input = d.Input
	}
	if l.Metadata == 0 {
		l.Metadata = d.Metadata
	}
	if l.StreamEvents == 0 {
		l.StreamEvents = d.StreamEvents
	}
	if l.Suspensions == 0 {
		l.Suspensions = d.Suspensions
	}
	return l
}

// maxNameBytes bounds client request ids, task types, claims and the like: what
// every store can index.
const maxNameBytes = 255

// validateName checks a short identifying text: not empty, bounded, UTF-8 and
// without control characters.
func validateName(field, value string, limit int) error {
	switch {
	case value == "":
		return argumentErrorf(field, "must not be empty")
	case len(value) > limit:
		return argumentErrorf(field, "must have at most %d bytes", limit)
	case !utf8.ValidString(value):
		return argumentErrorf(field, "must be UTF-8")
	}
	for _, r := range value {
		if r < 0x20 || r == 0x7f {
			return argumentErrorf(field, "must not have control characters")
		}
	}
	return nil
}
