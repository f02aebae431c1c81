package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

var ruleChecks = []check[eventsHarness]{
	{"of all rules that an append breaks the first one answers, and a refusal changes nothing", rulesInOrder},
	{"streams behave as the rules say under ten thousand random appends", rulesAtRandom},
	{"a repeated append is a duplicate with its own number, an older one without", ruleDuplicate},
	{"a duplicate is recognised after the end, from a stale attempt and on a full stream", ruleDuplicateFirst},
	{"without an ordinal nothing is taken for a repetition", ruleNoOrdinal},
	{"ordinals may have gaps, and begin anew with an epoch", ruleOrdinals},
	{"a lower attempt than the highest seen is refused, none is not", ruleAttempt},
	{"a lower epoch of a producer is refused, of that producer alone", ruleEpoch},
	{"nothing follows a terminal event, of each of the three types", ruleTerminal},
	{"an append may not get a higher number than it allows", ruleMaxSequence},
	{"a stream takes 32 producers and goes on with those it has", ruleProducers},
}

// pair is a store's stream beside its model.
type pair struct {
	events eventStore
	taskID string
	model  model
}

// append appends to both and fails where they differ. It reports whether the
// event was accepted.
func (p *pair) append(ctx context.Context, t *testing.T, e taskbridge.EventAppend) bool {
	t.Helper()
	e.TaskID = p.taskID
	e = tagged(e)
	want := p.model.judge(e)
	result, err := p.events.AppendEvent(ctx, e)
	agrees := errors.Is(err, want.err)
	if want.err == nil {
		agrees = err == nil && (result == want.result || want.either && result == taskbridge.AppendResult{Duplicate: true})
	}
	if !agrees {
		t.Fatalf("AppendEvent of %s, producer %v, ordinal %d, attempt %d, at most %d, on %+v: %+v, %v; want %v",
			e.Type, e.Producer, e.Ordinal, e.Attempt, e.MaxSequence, p.model.state(), result, err, want)
	}
	accepted := want.rule == 0
	if accepted {
		p.model.accept(e)
	}
	return accepted
}

// agree fails where the stream is not what the model has.
func (p *pair) agree(ctx context.Context, t *testing.T) {
	t.Helper()
	same(t, "the stream's state", p.model.state(), streamState(ctx, t, p.events, p.taskID))
	want, got := p.model.events(), readAll(ctx, t, p.events, p.taskID)
	if len(want) != len(got) {
		t.Fatalf("the stream has %d events, want %d", len(got), len(want))
	}
	for i := range want {
		same(t, fmt.Sprintf("event %d", i+1), want[i], got[i])
	}
}

func rulesInOrder(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	// A stream with everything in it that a rule may refer to.
	prepared := func(ended, full bool) *pair {
		p := &pair{events: events, taskID: newID()}
		e := message("", "known", 5, 10)
		e.Attempt = 3
		p.append(ctx, t, e)
		for i := 1; full && i < taskbridge.MaxProducers; i++ {
			p.append(ctx, t, message("", fmt.Sprintf("filler-%d", i), 1, 1))
		}
		if ended {
			e := message("", "known", 5, 11)
			e.Type, e.Payload = taskbridge.EventCancelled, []byte(`{"reason":"r"}`)
			p.append(ctx, t, e)
		}
		return p
	}
	sources := []struct {
		name           string
		epoch, ordinal int64
	}{{"known", 5, 0}, {"known", 5, 9}, {"known", 5, 10}, {"known", 5, 99}, {"known", 4, 0}, {"known", 4, 10}, {"known", 4, 99},
		{"known", 6, 0}, {"known", 6, 1}, {"new", 1, 0}, {"new", 1, 1}}
	seen := make(map[int]int)
	for _, ended := range []bool{false, true} {
		for _, full := range []bool{false, true} {
			p := prepared(ended, full)
			for _, source := range sources {
				for _, attempt := range []int64{0, 2, 3, 4} {
					for room := range 3 { // no limit, one place too few, just enough
						e := message("", source.name, source.epoch, source.ordinal)
						e.Attempt = attempt
						if room > 0 {
							e.MaxSequence = p.model.state().Last + int64(room) - 1
						}
						seen[p.model.judge(e).rule]++
						if p.append(ctx, t, e) {
							p.agree(ctx, t)
							p = prepared(ended, full)
						} else {
							same(t, "the state after the refusal", p.model.state(), streamState(ctx, t, events, p.taskID))
						}
					}
				}
			}
			p.agree(ctx, t)
		}
	}
	for rule := range 7 {
		if seen[rule] == 0 {
			t.Errorf("rule %d was never the one to answer", rule)
		}
	}
}

func rulesAtRandom(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	random := rand.New(rand.NewPCG(7, 8))
	const streams, each = 40, 250
	for range streams {
		p := &pair{events: events, taskID: newID()}
		producers := 2 + random.IntN(2*taskbridge.MaxProducers)
		for range each {
			e := message("", fmt.Sprintf("producer-%d", random.IntN(producers)), random.Int64N(3), random.Int64N(12))
			if random.IntN(5) == 0 { // which has one epoch, and always an ordinal
				e = message("", taskbridge.ControlProducer, 1, 1+random.Int64N(12))
			}
			e.Attempt = random.Int64N(4) * random.Int64N(2)
			if random.IntN(3) == 0 {
				e.MaxSequence = 1 + random.Int64N(40)
			}
			if random.IntN(60) == 0 {
				e.Type, e.Payload = taskbridge.EventFailed, []byte(`{"code":"C","message":"m","retryable":false}`)
			}
			p.append(ctx, t, e)
		}
		p.agree(ctx, t)
	}
}

func ruleDuplicate(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for ordinal := int64(1); ordinal <= 5; ordinal++ {
		p.append(ctx, t, message("", "source", 1, ordinal))
		for repeated := int64(1); repeated <= ordinal; repeated++ {
			if p.append(ctx, t, message("", "source", 1, repeated)) {
				t.Fatalf("ordinal %d was taken twice", repeated)
			}
		}
	}
	// What counts is who reports, not what: other content is a repetition too.
	other := message("", "source", 1, 5)
	other.Payload = []byte(`{"message":"other"}`)
	p.append(ctx, t, other)
	p.agree(ctx, t)
}

func ruleDuplicateFirst(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	first := message("", "source", 1, 1)
	first.Attempt = 1
	p.append(ctx, t, first)
	later := message("", "other", 1, 1)
	later.Attempt = 2
	p.append(ctx, t, later)
	end := control("", taskbridge.EventCompleted, 1)
	p.append(ctx, t, end)
	first.MaxSequence = 1
	if result, err := p.events.AppendEvent(ctx, withID(first, p.taskID)); err != nil || result != (taskbridge.AppendResult{Sequence: 1, Duplicate: true}) {
		t.Errorf("the repeated report: %+v, %v; want a duplicate of 1", result, err)
	}
	if result, err := p.events.AppendEvent(ctx, withID(end, p.taskID)); err != nil || result != (taskbridge.AppendResult{Sequence: 3, Duplicate: true}) {
		t.Errorf("the repeated end: %+v, %v; want a duplicate of 3", result, err)
	}
	p.agree(ctx, t)
}

func withID(e taskbridge.EventAppend, taskID string) taskbridge.EventAppend {
	e.TaskID = taskID
	return e
}

func ruleNoOrdinal(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for range 5 {
		if !p.append(ctx, t, message("", "source", 1, 0)) {
			t.Fatal("an append without an ordinal was refused")
		}
	}
	p.append(ctx, t, message("", "source", 1, 3))
	p.append(ctx, t, message("", "source", 1, 0))
	p.append(ctx, t, message("", "source", 1, 2)) // still a duplicate
	p.append(ctx, t, message("", "source", 2, 0)) // raises the epoch all the same
	p.append(ctx, t, message("", "source", 1, 9)) // fenced
	p.append(ctx, t, message("", "source", 2, 1))
	p.agree(ctx, t)
	if n := len(p.model.appends); n != 9 {
		t.Fatalf("%d events were accepted, want 9", n)
	}
}

func ruleOrdinals(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for _, source := range []struct{ epoch, ordinal int64 }{{1, 3}, {1, 1000}, {1, 1 << 40}, {7, 1}, {7, 2}, {1 << 40, 5}} {
		if !p.append(ctx, t, message("", "source", source.epoch, source.ordinal)) {
			t.Fatalf("ordinal %d of epoch %d was refused", source.ordinal, source.epoch)
		}
	}
	p.agree(ctx, t)
}

func ruleAttempt(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for i, attempt := range []int64{0, 1, 1, 3, 2, 3, 0, 1, 7, 3, 7} {
		e := message("", fmt.Sprintf("source-%d", i), 1, 1)
		e.Attempt = attempt
		p.append(ctx, t, e)
	}
	p.agree(ctx, t)
	if s := p.model.state(); s.Attempt != 7 || s.Last != 8 {
		t.Fatalf("the highest attempt is %d of %d events, want 7 of 8", s.Attempt, s.Last)
	}
}

func ruleEpoch(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for _, source := range []struct {
		name  string
		epoch int64
	}{{"a", 3}, {"b", 1}, {"a", 2}, {"b", 1}, {"a", 4}, {"a", 3}, {"b", 2}} {
		p.append(ctx, t, message("", source.name, source.epoch, 0))
	}
	p.agree(ctx, t)
	if n := len(p.model.appends); n != 5 {
		t.Fatalf("%d events were accepted, want 5", n)
	}
}

func ruleTerminal(t *testing.T, h eventsHarness) {
	ctx, events := deadline(t), h.New(t)
	ends := []taskbridge.EventType{taskbridge.EventCompleted, taskbridge.EventFailed, taskbridge.EventCancelled}
	for _, end := range ends {
		p := &pair{events: events, taskID: newID()}
		p.append(ctx, t, control("", taskbridge.EventStarted, 1))
		p.append(ctx, t, control("", end, 2))
		p.append(ctx, t, message("", "source", 1, 1))
		for _, again := range ends {
			if p.append(ctx, t, control("", again, 3)) {
				t.Fatalf("%s was accepted after %s", again, end)
			}
		}
		p.agree(ctx, t)
		if !streamState(ctx, t, events, p.taskID).Ended {
			t.Fatalf("the stream has not ended after %s", end)
		}
	}
}

func ruleMaxSequence(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	for ordinal := int64(1); ordinal <= 6; ordinal++ {
		e := message("", "source", 1, ordinal)
		e.MaxSequence = 3
		p.append(ctx, t, e)
	}
	if n := len(p.model.appends); n != 3 {
		t.Fatalf("%d events were accepted, want 3", n)
	}
	more := control("", taskbridge.EventCompleted, 1)
	more.MaxSequence = 4
	if !p.append(ctx, t, more) {
		t.Fatal("an append that allows more was refused")
	}
	p.agree(ctx, t)
}

func ruleProducers(t *testing.T, h eventsHarness) {
	ctx := deadline(t)
	p := &pair{events: h.New(t), taskID: newID()}
	name := func(i int) string { return fmt.Sprintf("producer-%d", i) }
	for round := int64(1); round <= 2; round++ {
		for i := range taskbridge.MaxProducers + 3 {
			accepted := p.append(ctx, t, message("", name(i), 1, round))
			if accepted != (i < taskbridge.MaxProducers) {
				t.Fatalf("round %d, producer %d: accepted %v", round, i, accepted)
			}
		}
	}
	p.append(ctx, t, message("", name(0), 9, 1)) // another epoch is no other producer
	p.agree(ctx, t)
}
