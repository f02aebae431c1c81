package taskbridge

import (
	"context"
	"time"
	"unicode/utf8"
)

// tokenBuffer joins tokens into messages. It belongs to whoever has the run's
// turn.
type tokenBuffer struct {
	text []byte // not recorded yet
	// sealed is the message that was tried with the first sealedBytes of text.
	// Its outcome being unknown, it must be tried the same again.
	sealed      *EventAppend
	sealedBytes int
	lost        error // why text was dropped by a delayed recording
}

// Token buffers a piece of text; see [Run].
func (r *localRun) Token(ctx context.Context, token string) error {
	if err := r.takeTurn(ctx); err != nil {
		return err
	}
	defer r.giveTurn()
	if err := r.Err(); err != nil {
		return err
	}
	if err := r.tokens.lost; err != nil {
		r.tokens.lost = nil
		return err
	}
	if len(r.tokens.text) >= r.tokenRoom() {
		// It could not be recorded when it was full. Until it is, no more is taken.
		if err := r.flush(ctx, false); err != nil {
			return err
		}
	}
	r.tokens.text = append(r.tokens.text, token...)
	if len(r.tokens.text) >= r.tokenRoom() {
		// With an unknown outcome the token is kept and tried again: an error would
		// have the caller report it twice.
		if err := r.flush(ctx, false); err != nil && outcomeKnown(err) {
			return err
		}
	}
	r.flushLater()
	return nil
}

// tokenRoom is how long the text of one message may be, as JSON.
func (r *localRun) tokenRoom() int { return messageRoom(r.lifecycle.limits.EventPayload) }

// flush records the buffered text. Unless all is set, a rune that is not
// complete yet waits for the next token. Text that the store refuses is
// dropped, and the refusal returned.
func (r *localRun) flush(ctx context.Context, all bool) error {
	t := &r.tokens
	for {
		if t.sealed == nil {
			n := len(t.text)
			if !all {
				n -= incompleteRune(t.text)
			}
			if n == 0 {
				return nil
			}
			if fits := fitting(t.text[:n], r.tokenRoom()); fits > 0 {
				n = fits
			}
			payload, err := Message{Text: string(t.text[:n])}.payload()
			if err != nil {
				return err
			}
			event := r.nextEvent(EventMessage, payload)
			t.sealed, t.sealedBytes = &event, n
		}
		if err := r.append(ctx, *t.sealed); err != nil {
			r.unsure = nil // sealed is what is tried again
			if outcomeKnown(err) {
				*t = tokenBuffer{}
			}
			return err
		}
		t.text = t.text[:copy(t.text, t.text[t.sealedBytes:])]
		t.sealed = nil
	}
}

// incompleteRune returns the length of the beginning of a rune at the end of s.
func incompleteRune(s []byte) int {
	for n := 1; n <= min(len(s), utf8.UTFMax-1); n++ {
		tail := s[len(s)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// flushLater records the buffered text after the delay, unless that is under way.
func (r *localRun) flushLater() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.flushTimer {
		return
	}
	r.flushTimer = true
	// The watcher is still counted, as the run is not over: Go does not race
	// with Wait.
	r.workers.Go(func() {
		for delay := r.lifecycle.tokenDelay; ; delay = min(2*delay, time.Second) {
			timer := r.lifecycle.clock.NewTimer(delay)
			select {
			case <-r.life.Done():
				timer.Stop()
				return
			case <-timer.C():
			}
			if done := r.flushNow(); done {
				return
			}
		}
	})
}

// flushNow is one delayed recording; false: the store must be tried again.
func (r *localRun) flushNow() bool {
	if r.takeTurn(r.life) != nil {
		return true
	}
	defer r.giveTurn()
	err := r.flush(r.life, false)
	if err != nil && !outcomeKnown(err) {
		return false
	}
	if err != nil && r.Err() == nil {
		r.tokens.lost = err
	}
	// Still with the turn, so that the next token starts a new delay.
	r.mu.Lock()
	r.flushTimer = false
	r.mu.Unlock()
	return true
}
