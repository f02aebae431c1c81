package taskbridge

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// marshal encodes as the wire has it: compact, UTF-8, nothing escaped for HTML.
func marshal(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return json.RawMessage(bytes.TrimRight(buf.Bytes(), "\n")), nil
}

// mustMarshal is marshal for values that cannot fail: strings and flags.
func mustMarshal(v any) json.RawMessage {
	data, err := marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// text makes a string fit for JSON: invalid UTF-8 becomes U+FFFD.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// compactJSON checks and compacts a JSON value that came from outside.
func compactJSON(field string, value json.RawMessage) (json.RawMessage, error) {
	if !utf8.Valid(value) {
		return nil, argumentErrorf(field, "must be UTF-8")
	}
	var buf bytes.Buffer
	buf.Grow(len(value))
	if err := json.Compact(&buf, value); err != nil {
		return nil, argumentErrorf(field, "must be JSON: %v", err)
	}
	if nesting(buf.Bytes()) > maxNesting {
		return nil, argumentErrorf(field, "must not be nested deeper than %d", maxNesting)
	}
	return buf.Bytes(), nil
}

// maxNesting is how deep objects and arrays may be nested in what comes from
// outside. Decoders have limits of their own (Go's 10,000, others' less), and
// what one client sent must not keep others from reading what is around it.
const maxNesting = 1000

// nesting returns how deep the objects and arrays of a valid JSON text go.
func nesting(text []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// compactObject is compactJSON for a value that must be an object; nil is {}.
func compactObject(field string, value json.RawMessage) (json.RawMessage, error) {
	if value == nil {
		return json.RawMessage("{}"), nil
	}
	compact, err := compactJSON(field, value)
	if err != nil {
		return nil, err
	}
	if compact[0] != '{' {
		return nil, argumentErrorf(field, "must be a JSON object")
	}
	return compact, nil
}

type progressPayload struct {
	Progress float64 `json:"progress"`
	Stage    string  `json:"stage,omitempty"`
	Message  string  `json:"message,omitempty"`
}

func (p Progress) payload() (json.RawMessage, error) {
	if math.IsNaN(p.Percent) || p.Percent < 0 || p.Percent > 100 {
		return nil, argumentErrorf("progress", "must be a number from 0 to 100")
	}
	return marshal(progressPayload{p.Percent, text(p.Stage), text(p.Message)})
}

type messagePayload struct {
	Message string       `json:"message"`
	Level   MessageLevel `json:"level,omitempty"`
}

func (m Message) payload() (json.RawMessage, error) {
	switch m.Level {
	case "", LevelInfo, LevelWarning, LevelDebug:
	default:
		return nil, argumentErrorf("level", "must be info, warning or debug")
	}
	return marshal(messagePayload{text(m.Text), m.Level})
}

type completedPayload struct {
	Result        json.RawMessage `json:"result"`
	Message       string          `json:"message,omitempty"`
	ResultOmitted *resultOmitted  `json:"resultOmitted,omitempty"`
}

// resultOmitted says in a terminal payload why its result is null.
type resultOmitted struct {
	Bytes int `json:"bytes"`
	Limit int `json:"limit"`
}

func (c Completion) payload(limit int) (json.RawMessage, error) {
	result := json.RawMessage("null")
	if c.Result != nil {
		var err error
		if result, err = compactJSON("result", c.Result); err != nil {
			return nil, err
		}
	}
	message := text(c.Message)
	payload, err := marshal(completedPayload{Result: result, Message: message})
	if err != nil || len(payload) <= limit {
		return payload, err
	}
	const null = "null"
	omitted := &resultOmitted{Bytes: len(result), Limit: limit}
	if len(result) <= len(null) {
		omitted = nil // the message is what is too long
	}
	return fit(message, limit, func(message string) json.RawMessage {
		return mustMarshal(completedPayload{json.RawMessage(null), message, omitted})
	}), nil
}

func (f Failure) payload(limit int) json.RawMessage {
	f.Code = text(f.Code)
	if f.Code == "" {
		f.Code = "TASK_FAILED" // an end is never lost for want of a code
	}
	f.Code = cutText(f.Code, maxNameBytes)
	return fit(text(f.Message), limit, func(message string) json.RawMessage {
		f.Message = message
		return mustMarshal(f)
	})
}

type cancelledPayload struct {
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// defaultCancelReason stands where no client gave a reason.
const defaultCancelReason = "cancelled by client"

func cancelled(reason, message string, limit int) json.RawMessage {
	if reason == "" {
		reason = defaultCancelReason
	}
	return fit(text(message), limit, func(message string) json.RawMessage {
		return mustMarshal(cancelledPayload{text(reason), message})
	})
}

// fit builds a payload round a message that is cut, if need be, until the
// payload is within the limit.
func fit(message string, limit int, build func(message string) json.RawMessage) json.RawMessage {
	payload := build(message)
	if len(payload) <= limit {
		return payload
	}
	const mark = " … (cut)"
	n := fitting([]byte(message), limit-len(build(mark)))
	if n == 0 {
		return build("")
	}
	return build(message[:n] + mark)
}

// cutText returns the longest prefix of at most limit bytes that ends at a rune.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// messageRoom is how many bytes of JSON string a message's payload of the limit
// has room for.
func messageRoom(limit int) int { return limit - len(`{"message":""}`) }

// fitting returns how many bytes of the text fit into room bytes of a JSON
// string, ending at a rune.
func fitting(s []byte, room int) int {
	for i := 0; i < len(s); {
		r, width := utf8.DecodeRune(s[i:])
		size := width
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
			size = 2
		case r < 0x20 || r == '\u2028' || r == '\u2029':
			size = 6
		case r == utf8.RuneError:
			size = 6
		}
		if room -= size; room < 0 {
			return i
		}
		i += width
	}
	return len(s)
}

func (s Suspension) payload(limit int) (json.RawMessage, error) {
	if err := validateName("suspendId", s.SuspendID, maxNameBytes); err != nil {
		return nil, err
	}
	switch s.Kind {
	case SuspendUserAction, SuspendExternalConfirmation, SuspendSystemPaused:
	default:
		return nil, argumentErrorf("kind", "must be %s, %s or %s", SuspendUserAction, SuspendExternalConfirmation, SuspendSystemPaused)
	}
	if err := validateName("reasonCode", s.ReasonCode, maxNameBytes); err != nil {
		return nil, err
	}
	if len(s.AllowedActions) == 0 {
		return nil, argumentErrorf("allowedActions", "must have at least one action")
	}
	for _, action := range s.AllowedActions {
		if err := validateName("allowedActions", action, maxNameBytes); err != nil {
			return nil, err
		}
	}
	if s.SchemaVersion < 1 {
		return nil, argumentErrorf("schemaVersion", "must be 1 or more")
	}
	if s.ExpiresAt != nil {
		at := timestamp(*s.ExpiresAt)
		s.ExpiresAt = &at
	}
	for field, value := range map[string]*json.RawMessage{"uiHints": &s.UIHints, "interaction": &s.Interaction} {
		if *value == nil {
			continue
		}
		compact, err := compactObject(field, *value)
		if err != nil {
			return nil, err
		}
		*value = compact
	}
	payload, err := marshal(s)
	if err != nil {
		return nil, argumentErrorf("suspension", "cannot be encoded: %v", err)
	}
	return payload, checkSize("payload", payload, limit)
}

func checkSize(field string, value []byte, limit int) error {
	if len(value) > limit {
		return &SizeError{Field: field, Bytes: len(value), Limit: limit}
	}
	return nil
}

// valueCheck reports what is wrong with a value of a payload, "" if nothing is.
type valueCheck func(json.RawMessage) string

func isString(v json.RawMessage) string {
	if v[0] != '"' {
		return "must be a string"
	}
	return ""
}

func isFilledString(v json.RawMessage) string {
	if v[0] != '"' || len(v) == 2 {
		return "must be a string that is not empty"
	}
	return ""
}

func isBool(v json.RawMessage) string {
	if v[0] != 't' && v[0] != 'f' {
		return "must be true or false"
	}
	return ""
}

func isObject(v json.RawMessage) string {
	if v[0] != '{' {
		return "must be an object"
	}
	return ""
}

func isAnything(json.RawMessage) string { return "" }

func isPercent(v json.RawMessage) string {
	var n float64
	if v[0] == 'n' || json.Unmarshal(v, &n) != nil || n < 0 || n > 100 {
		return "must be a number from 0 to 100"
	}
	return ""
}

func isVersion(v json.RawMessage) string {
	var n int64
	if v[0] == 'n' || json.Unmarshal(v, &n) != nil || n < 1 {
		return "must be an integer of 1 or more"
	}
	return ""
}

func isTime(v json.RawMessage) string {
	var t time.Time
	if v[0] != '"' || json.Unmarshal(v, &t) != nil {
		return "must be an RFC 3339 time"
	}
	return ""
}

func isExpiry(v json.RawMessage) string {
	if string(v) == "null" { // one of the three fields that the protocol lets be null
		return ""
	}
	return isTime(v)
}

func isActions(v json.RawMessage) string {
	var actions []string
	if v[0] != '[' || json.Unmarshal(v, &actions) != nil || len(actions) == 0 || slices.Contains(actions, "") {
		return "must be a list of one or more action types"
	}
	return ""
}

func oneOf(allowed ...string) valueCheck {
	return func(v json.RawMessage) string {
		var s string
		if v[0] != '"' || json.Unmarshal(v, &s) != nil || !slices.Contains(allowed, s) {
			return "must be one of " + strings.Join(allowed, ", ")
		}
		return ""
	}
}

type payloadRule struct {
	required, optional map[string]valueCheck
	open               bool // other keys are allowed
}

var isLevel = oneOf(string(LevelInfo), string(LevelWarning), string(LevelDebug))

// payloadRules is the table of events in the protocol.
var payloadRules = map[EventType]payloadRule{
	EventStarted: {
		optional: map[string]valueCheck{"message": isString},
	},
	EventProgress: {
		required: map[string]valueCheck{"progress": isPercent},
		optional: map[string]valueCheck{"stage": isString, "message": isString},
	},
	EventMessage: {
		required: map[string]valueCheck{"message": isString},
		optional: map[string]valueCheck{"level": isLevel},
	},
	EventSuspended: {
		required: map[string]valueCheck{
			"suspendId": isFilledString, "reasonCode": isFilledString,
			"kind":           oneOf(string(SuspendUserAction), string(SuspendExternalConfirmation), string(SuspendSystemPaused)),
			"allowedActions": isActions, "schemaVersion": isVersion,
		},
		optional: map[string]valueCheck{"expiresAt": isExpiry, "uiHints": isObject, "interaction": isObject},
	},
	EventActionAccepted: {
		required: map[string]valueCheck{
			"suspendId": isFilledString, "clientActionId": isFilledString, "actionType": isFilledString, "acceptedAt": isTime,
		},
		optional: map[string]valueCheck{"message": isString},
	},
	EventCompleted: {
		required: map[string]valueCheck{"result": isAnything},
		open:     true,
	},
	EventFailed: {
		required: map[string]valueCheck{"code": isFilledString, "message": isString, "retryable": isBool},
	},
	EventCancelled: {
		required: map[string]valueCheck{"reason": isString},
		optional: map[string]valueCheck{"message": isString},
	},
}

// ValidatePayload reports whether the payload is a compact JSON object that the
// protocol allows for an event of the type: all required keys, no others, each
// of its kind. The error is an [*ArgumentError].
func ValidatePayload(t EventType, payload json.RawMessage) error {
	rule, ok := payloadRules[t]
	if !ok {
		return argumentErrorf("type", "must be one of the protocol's event types")
	}
	compact, err := compactJSON("payload", payload)
	switch {
	case err != nil:
		return err
	case compact[0] != '{':
		return argumentErrorf("payload", "must be a JSON object")
	case len(compact) != len(payload):
		return argumentErrorf("payload", "must be compact JSON")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return argumentErrorf("payload", "must be JSON: %v", err)
	}
	for key := range rule.required {
		if _, ok := members[key]; !ok {
			return argumentErrorf("payload."+key, "is required")
		}
	}
	for key, value := range members {
		check := rule.required[key]
		if check == nil {
			check = rule.optional[key]
		}
		if check == nil {
			if rule.open {
				continue
			}
			return argumentErrorf("payload."+key, "is not part of %s", t)
		}
		if complaint := check(value); complaint != "" {
			return argumentErrorf("payload."+key, "%s", complaint)
		}
	}
	return nil
}
