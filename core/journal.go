package taskbridge

type journal struct{}

func newJournal(stores Stores, clock Clock) *journal { panic("not yet") }
