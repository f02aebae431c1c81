package workerapi

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

type stoppedClock struct {
	taskbridge.SystemClock
	now time.Time
}

func (c stoppedClock) Now() time.Time { return c.now }

func testSigner(t testing.TB) *Signer {
	t.Helper()
	s, err := NewSigner(SignerOptions{
		Keys:  [][]byte{[]byte(strings.Repeat("k", MinKeyBytes))},
		Clock: stoppedClock{now: time.Date(2030, 1, 2, 3, 4, 5, 678_901_234, time.UTC)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testTokens(t testing.TB, s *Signer) (submission, attempt string, g grant) {
	t.Helper()
	submission, err := s.SubmissionToken("3ff-abcdefghijklmnopqrstuvwxyz")
	if err != nil {
		t.Fatal(err)
	}
	g.AttemptRef = taskbridge.AttemptRef{
		TaskID: "3ff-abcdefghijklmnopqrstuvwxyz", Attempt: 300, Producer: taskbridge.Producer{Name: "worker", Epoch: 70_000},
	}
	g.claim = hashClaim("claim")
	attempt, g.expires, err = s.AttemptToken(g.AttemptRef, "claim")
	if err != nil {
		t.Fatal(err)
	}
	return submission, attempt, g
}

func TestATokenSaysWhatWasSigned(t *testing.T) {
	s := testSigner(t)
	submission, attempt, g := testTokens(t, s)
	if id, ok := s.openSubmission(submission); !ok || id != g.TaskID {
		t.Errorf("%q, %v", id, ok)
	}
	got, ok := s.openAttempt(attempt)
	if !ok || got != g {
		t.Errorf("%+v, want %+v", got, g)
	}
	if want := s.clock.Now().Add(5 * time.Minute).Truncate(time.Millisecond); !g.expires.Equal(want) || s.expired(got) {
		t.Errorf("it expires at %v, want %v", g.expires, want)
	}
	if len(submission) > 100 || len(attempt) > 150 {
		t.Errorf("%d and %d bytes are not short", len(submission), len(attempt))
	}
	// The epoch may be the claim's own.
	g.Numbered = true
	numbered, _ := s.renew(g)
	if got, ok := s.openAttempt(numbered); !ok || got != g || numbered == attempt {
		t.Errorf("%+v, want %+v", got, g)
	}
	// The longest there can be.
	g.TaskID, g.Producer.Name, g.Attempt, g.Producer.Epoch = strings.Repeat("t", 255), strings.Repeat("p", 255), 1<<63-1, 1<<63-1
	g.Numbered = true
	longest, _ := s.renew(g)
	if got, ok := s.openAttempt(longest); !ok || got.AttemptRef != g.AttemptRef {
		t.Errorf("the longest token, %d bytes: %+v", len(longest), got)
	}
}

func TestATokenWithAnyChangeIsRefused(t *testing.T) {
	s := testSigner(t)
	submission, attempt, _ := testTokens(t, s)
	for _, token := range []string{submission, attempt} {
		for i := range len(token) {
			for _, c := range []byte("A-_z0.=\n") {
				if changed := token[:i] + string(c) + token[i+1:]; changed != token {
					wantRefused(t, s, changed)
				}
				wantRefused(t, s, token[:i]+string(c)+token[i:])
			}
			wantRefused(t, s, token[:i])
			wantRefused(t, s, token[:i]+token[i+1:])
		}
		wantRefused(t, s, token+token)
		wantRefused(t, s, strings.ToLower(token))
	}
	wantRefused(t, s, strings.Replace(submission, submissionPrefix, attemptPrefix, 1))
	wantRefused(t, s, strings.Replace(attempt, attemptPrefix, submissionPrefix, 1))
}

func wantRefused(t *testing.T, s *Signer, token string) {
	t.Helper()
	if id, ok := s.openSubmission(token); ok {
		t.Errorf("%q is taken for a submission token of %s", token, id)
	}
	if g, ok := s.openAttempt(token); ok {
		t.Errorf("%q is taken for an attempt token of %+v", token, g)
	}
}

func TestContentThatIsSignedAndOfNoMeaningIsRefused(t *testing.T) {
	s := testSigner(t)
	_, _, g := testTokens(t, s)
	good := g.encode()
	for name, content := range map[string][]byte{
		"nothing":              {},
		"cut":                  good[:20],
		"without a task":       good[:len(good)-len(g.TaskID)],
		"a number too large":   append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, good...),
		"a negative number":    append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, good[2:]...),
		"a number in two ways": append([]byte{0x81, 0x00}, good[2:]...),
		"no task id":           append(good[:len(good):len(good)], '/'),
	} {
		if got, ok := s.openAttempt(seal(attemptPrefix, s.keys[0].attempt, content)); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
	if id, ok := s.openSubmission(seal(submissionPrefix, s.keys[0].submission, []byte("a/b"))); ok {
		t.Errorf("taken for a token of %q", id)
	}
}

// FuzzTokens: whatever is taken for a token is what the signer makes, to the letter.
func FuzzTokens(f *testing.F) {
	s := testSigner(f)
	submission, attempt, _ := testTokens(f, s)
	for _, seed := range []string{"", "tbs1.", "tba1.", submission, attempt, submission + "=", attempt[:60], "tba2" + attempt[4:]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok := s.openSubmission(token); ok && token != submission {
			t.Errorf("%q is taken for a submission token", token)
		}
		if _, ok := s.openAttempt(token); ok && token != attempt {
			t.Errorf("%q is taken for an attempt token", token)
		}
	})
}

// FuzzGrant: content is read in one form alone, and never reaches outside.
func FuzzGrant(f *testing.F) {
	_, _, g := testTokens(f, testSigner(f))
	f.Add(g.encode())
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat("\xff", 40)))
	f.Add(append([]byte{1, 1, 1}, strings.Repeat("h", 16)+"\xffshort"...))
	f.Fuzz(func(t *testing.T, content []byte) {
		g, ok := decodeGrant(content)
		if ok && string(g.encode()) != string(content) {
			t.Errorf("%q is read as %+v", content, g)
		}
		sealed := seal(attemptPrefix, []byte("some other key"), content)
		if _, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(sealed, attemptPrefix)); err != nil {
			t.Error(err)
		}
	})
}
