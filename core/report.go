package taskbridge

import "cmp"

// Report is one report of a worker. Exactly one of the fields from Progress to
// Outcome is set.
type Report struct {
	// Ordinal rises from 1 within the start, or the claim's epoch, gaps allowed, to
	// [MaxReportOrdinal].
	Ordinal int64
	// Verify has what is taken for a repetition looked for; not with a Suspension
	// or an Outcome, which are recognised by themselves.
	Verify Verification
	// Since is a sequence number that the report's events come after, as far as
	// the caller knows: where they are looked for from. 0: from the beginning.
	Since int64

	Progress *Progress
	Message  *Message
	// Token is a piece of text; consecutive ones of a call become one message.
	Token *string
	// Suspension and Outcome are the last report of a call.
	Suspension *Suspension
	Outcome    *Outcome
}

// MaxReportOrdinal is the highest ordinal that a [Report] may have: the largest
// whole number that JSON carries safely.
const MaxReportOrdinal = 1<<53 - 1

// Verification is for a source that means to repeat itself and may fail to, as
// when it took its decisions anew: an ordinal alone would have another report
// taken for a repetition, and lost. A report is found where the stream has an
// event of its type, payload and attempt behind Since and behind the report
// before it. What is read is what is behind Since.
type Verification string

// The verifications; none means that the ordinal alone decides.
const (
	// VerifyDuplicate looks for the report if the stream has seen its ordinal. If
	// it is not found, neither it nor any later one of the call is recorded:
	// [ErrOrdinalReused]. A source goes on under a higher epoch then.
	VerifyDuplicate Verification = "duplicate"
	// VerifyAlways looks for the report before it is recorded as well: if it is
	// found, that is it. So a source that lost its epoch, with a report whose
	// outcome is not known, goes on under a higher one.
	VerifyAlways Verification = "always"
)

// stronger returns that of the two which looks more closely.
func stronger(a, b Verification) Verification {
	if a == VerifyAlways || b == VerifyAlways {
		return VerifyAlways
	}
	return cmp.Or(a, b)
}

// checkVerify checks what is said of the verification.
func (r Report) checkVerify() error {
	switch {
	case r.Verify != "" && r.Verify != VerifyDuplicate && r.Verify != VerifyAlways:
		return argumentErrorf("verify", "must be duplicate or always, or absent")
	case r.Since < 0 || r.Since > MaxReportOrdinal:
		return argumentErrorf("since", "must be 0 to %d", int64(MaxReportOrdinal))
	case r.Since > 0 && r.Verify == "":
		return argumentErrorf("since", "does not go without verify")
	case r.Verify != "" && (r.Suspension != nil || r.Outcome != nil):
		return argumentErrorf("verify", "does not go with a suspension or an end")
	}
	return nil
}

// RefusedReport is a report that was not recorded and never will be.
type RefusedReport struct {
	Ordinal int64
	// Err matches [ErrStreamFull]; or, in a call with an outcome that was recorded
	// before, [ErrTaskFinished].
	Err error
}

// ReportError says which report of a call may not be recorded. It wraps an
// [*ArgumentError], a [*SizeError] or [ErrOrdinalReused].
type ReportError struct {
	Index int // in the call's reports, from 0
	Err   error
}

func (e *ReportError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with the report.
func (e *ReportError) Unwrap() error { return e.Err }
