package taskbridge

// CheckReport says what is wrong with a report, as the method of [Run] that it
// stands for would: [*ArgumentError], or [*SizeError] where it is over its limit.
// nil: it may be recorded, its ordinal and the state of the task apart. A zero
// field of limits means the default.
func CheckReport(report Report, limits Limits) error {
	limits = limits.withDefaults()
	var payload []byte
	var err error
	set := 0
	if err := report.checkVerify(); err != nil {
		return err
	}
	if report.Progress != nil {
		set++
		payload, err = report.Progress.payload()
	}
	if report.Message != nil {
		set++
		payload, err = report.Message.payload()
	}
	if report.Token != nil {
		set++ // split where it is too long
	}
	if report.Suspension != nil {
		set++
		payload, err = report.Suspension.payload(limits.EventPayload)
	}
	if report.Outcome != nil {
		set++
		_, err = report.Outcome.payload(limits.TerminalPayload) // cut where it is too long
	}
	switch {
	case set != 1:
		return argumentErrorf("report", "must be exactly one of progress, message, token, suspension and outcome")
	case err != nil:
		return err
	}
	return checkSize("payload", payload, limits.EventPayload)
}
