package conformance

import (
	"fmt"
	"slices"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// model is a stream as [taskbridge.EventStore] describes it, in the plainest
// form: it remembers everything and looks through all of it.
type model struct {
	appends []taskbridge.EventAppend // those that were accepted
}

// verdict is what the contract says about an append.
type verdict struct {
	rule   int   // of AppendEvent that decides; 0: accepted
	err    error // that the rule asks for
	result taskbridge.AppendResult
	// either allows the sequence number 0 too: whether an append without an
	// ordinal takes a producer's last place is left open.
	either bool
}

// judge applies the rules in order, without an effect.
func (m *model) judge(e taskbridge.EventAppend) verdict {
	var (
		epoch, ordinal, ordinalAt int64 // the last of the producer
		attempt                   int64
		known, followed, ended    bool
		producers                 []string
	)
	for i, a := range m.appends {
		attempt = max(attempt, a.Attempt)
		ended = a.Type.Terminal()
		if !slices.Contains(producers, a.Producer.Name) {
			producers = append(producers, a.Producer.Name)
		}
		if a.Producer.Name != e.Producer.Name {
			continue
		}
		if !known || a.Producer.Epoch > epoch {
			epoch, ordinal = a.Producer.Epoch, 0
		}
		known = true
		if followed = a.Ordinal == 0; !followed {
			ordinal, ordinalAt = a.Ordinal, int64(i+1)
		}
	}
	next := int64(len(m.appends)) + 1
	switch {
	case e.Ordinal > 0 && known && e.Producer.Epoch == epoch && e.Ordinal <= ordinal:
		v := verdict{rule: 1, result: taskbridge.AppendResult{Duplicate: true}}
		if e.Ordinal == ordinal {
			v.result.Sequence, v.either = ordinalAt, followed
		}
		return v
	case e.Attempt > 0 && e.Attempt < attempt:
		return verdict{rule: 2, err: taskbridge.ErrStaleAttempt}
	case known && e.Producer.Epoch < epoch:
		return verdict{rule: 3, err: taskbridge.ErrStaleProducer}
	case ended:
		return verdict{rule: 4, err: taskbridge.ErrTaskFinished}
	case e.MaxSequence > 0 && next > e.MaxSequence:
		return verdict{rule: 5, err: taskbridge.ErrStreamFull}
	case !known && len(producers) >= taskbridge.MaxProducers:
		return verdict{rule: 6, err: taskbridge.ErrInvalidArgument}
	}
	return verdict{result: taskbridge.AppendResult{Sequence: next}}
}

// accept records an append that judge lets pass.
func (m *model) accept(e taskbridge.EventAppend) { m.appends = append(m.appends, e) }

// state is what StreamState is to return.
func (m *model) state() taskbridge.StreamState {
	var s taskbridge.StreamState
	for i, a := range m.appends {
		s.Last, s.LastTag, s.LastAt, s.Ended = int64(i+1), a.Tag, a.CreatedAt, a.Type.Terminal()
		if i == 0 {
			s.First, s.FirstTag = s.Last, s.LastTag
		}
		s.Attempt = max(s.Attempt, a.Attempt)
		if a.Producer.Name == taskbridge.ControlProducer && a.Ordinal > 0 {
			s.Controls = a.Ordinal
		}
	}
	return s
}

// events is what ReadEvents is to return.
func (m *model) events() []taskbridge.Event {
	all := make([]taskbridge.Event, len(m.appends))
	for i, a := range m.appends {
		all[i] = stored(a, int64(i+1))
	}
	return all
}

func (v verdict) String() string {
	switch {
	case v.err != nil:
		return fmt.Sprintf("rule %d: %v", v.rule, v.err)
	case v.rule == 1:
		return fmt.Sprintf("rule 1: a duplicate of %d", v.result.Sequence)
	}
	return fmt.Sprintf("accepted as %d", v.result.Sequence)
}
