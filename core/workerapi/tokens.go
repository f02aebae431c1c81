package workerapi

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// SignerOptions configures a [Signer]. Only Keys is required.
type SignerOptions struct {
	// Keys are secrets of 32 bytes or more. The first signs, all verify: a new key
	// is put first on every server that verifies, and an old one is taken away once
	// no task that was created under it is open.
	Keys [][]byte
	// AttemptTTL is how long an attempt token is valid; default 5 min. Each answer
	// renews it.
	AttemptTTL time.Duration
	Clock      taskbridge.Clock
}

// MinKeyBytes is how long a key of a [Signer] must be.
const MinKeyBytes = 32

// Signer makes the two kinds of token, and tells its own from others. Safe for
// concurrent use.
//
// A submission token names a task and may do nothing but start it. It does not
// expire: it ends with the task. An attempt token names one start of one attempt
// and may report on it. It is valid for minutes, and of no use once a later
// attempt has started.
//
// Both are opaque to whoever has them: a prefix for the kind and version, and in
// base64url the content, readable by all, followed by its HMAC-SHA256 under a
// key that is made from the secret for that kind alone.
type Signer struct {
	keys  []signingKey
	ttl   time.Duration
	clock taskbridge.Clock
}

var _ taskbridge.SubmissionTokens = (*Signer)(nil)

// signingKey holds the keys that are made from one secret.
type signingKey struct{ submission, attempt []byte }

// Prefixes of tokens, with their version.
const (
	submissionPrefix = "tbs1."
	attemptPrefix    = "tba1."
)

// maxTokenBytes bounds what is looked at: more than the longest token has.
const maxTokenBytes = 1024

// NewSigner makes a signer.
func NewSigner(opts SignerOptions) (*Signer, error) {
	if len(opts.Keys) == 0 {
		return nil, errors.New("workerapi: SignerOptions.Keys must have a key")
	}
	if opts.AttemptTTL < 0 {
		return nil, errors.New("workerapi: SignerOptions.AttemptTTL must not be negative")
	}
	s := &Signer{ttl: opts.AttemptTTL, clock: opts.Clock}
	if s.ttl == 0 {
		s.ttl = 5 * time.Minute
	}
	if s.clock == nil {
		s.clock = taskbridge.SystemClock{}
	}
	for i, key := range opts.Keys {
		if len(key) < MinKeyBytes {
			return nil, fmt.Errorf("workerapi: SignerOptions.Keys[%d] has %d bytes, it must have %d or more", i, len(key), MinKeyBytes)
		}
		s.keys = append(s.keys, signingKey{
			submission: mac(key, []byte("taskbridge worker API, submission token, version 1")),
			attempt:    mac(key, []byte("taskbridge worker API, attempt token, version 1")),
		})
	}
	return s, nil
}

func mac(key, content []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(content)
	return h.Sum(nil)
}

// SubmissionToken makes the submission token of a task.
func (s *Signer) SubmissionToken(taskID string) (string, error) {
	if !taskbridge.ValidTaskID(taskID) {
		return "", &taskbridge.ArgumentError{Field: "taskId", Reason: "is no task id"}
	}
	return seal(submissionPrefix, s.keys[0].submission, []byte(taskID)), nil
}

// AttemptToken makes an attempt token for the start of a claim, and says until
// when it is valid.
func (s *Signer) AttemptToken(ref taskbridge.AttemptRef, claim string) (string, time.Time, error) {
	if !taskbridge.ValidTaskID(ref.TaskID) || ref.Attempt < 1 || ref.Producer.Epoch < 1 || ref.Producer.Name == "" ||
		len(ref.Producer.Name) > maxProducerBytes {
		return "", time.Time{}, &taskbridge.ArgumentError{Field: "attempt", Reason: "is no attempt"}
	}
	token, expires := s.renew(grant{AttemptRef: ref, claim: hashClaim(claim)})
	return token, expires, nil
}

// grant is what an attempt token says.
type grant struct {
	taskbridge.AttemptRef
	claim   claimHash
	expires time.Time
}

// claimHash stands for a claim, which may be long.
type claimHash [16]byte

func hashClaim(claim string) claimHash {
	sum := sha256.Sum256([]byte(claim))
	return claimHash(sum[:16])
}

// maxProducerBytes is how long a producer's name may be, as core has it.
const maxProducerBytes = 255

// renew makes an attempt token that is valid from now on.
func (s *Signer) renew(g grant) (string, time.Time) {
	g.expires = s.clock.Now().Add(s.ttl).UTC().Truncate(time.Millisecond)
	return seal(attemptPrefix, s.keys[0].attempt, g.encode()), g.expires
}

// encode: attempt, epoch and time of expiry as uvarints, the claim's hash, a zero
// where the epoch is the claim's own, the producer's name behind its length, and
// the task id. (A server that knows no such epochs takes the zero for a name
// without a letter, and what follows for no task id.)
func (g grant) encode() []byte {
	b := make([]byte, 0, 128)
	b = binary.AppendUvarint(b, uint64(g.Attempt))
	b = binary.AppendUvarint(b, uint64(g.Producer.Epoch))
	b = binary.AppendUvarint(b, uint64(g.expires.UnixMilli()))
	b = append(b, g.claim[:]...)
	if g.Numbered {
		b = append(b, 0)
	}
	b = append(b, byte(len(g.Producer.Name)))
	b = append(b, g.Producer.Name...)
	return append(b, g.TaskID...)
}

func decodeGrant(b []byte) (g grant, ok bool) {
	all := b
	var numbers [3]int64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > 1<<63-1 {
			return g, false
		}
		numbers[i], b = int64(n), b[size:]
	}
	if len(b) < len(g.claim)+1 {
		return g, false
	}
	copy(g.claim[:], b)
	numbered := false
	length, b := int(b[len(g.claim)]), b[len(g.claim)+1:]
	if length == 0 && len(b) > 0 {
		numbered, length, b = true, int(b[0]), b[1:]
	}
	if length == 0 || len(b) < length {
		return g, false
	}
	g.AttemptRef = taskbridge.AttemptRef{
		TaskID: string(b[length:]), Attempt: numbers[0],
		Producer: taskbridge.Producer{Name: string(b[:length]), Epoch: numbers[1]}, Numbered: numbered,
	}
	g.expires = time.UnixMilli(numbers[2]).UTC()
	// One content, one form.
	return g, taskbridge.ValidTaskID(g.TaskID) && bytes.Equal(g.encode(), all)
}

// isToken reports whether a bearer token is, or pretends to be, one of a signer.
func isToken(token string) bool {
	return strings.HasPrefix(token, submissionPrefix) || strings.HasPrefix(token, attemptPrefix)
}

// openSubmission returns the task that a submission token names.
func (s *Signer) openSubmission(token string) (taskID string, ok bool) {
	content, ok := s.open(submissionPrefix, token, func(k signingKey) []byte { return k.submission })
	return string(content), ok && taskbridge.ValidTaskID(string(content))
}

// openAttempt returns what an attempt token says, whether or not it has expired.
func (s *Signer) openAttempt(token string) (grant, bool) {
	content, ok := s.open(attemptPrefix, token, func(k signingKey) []byte { return k.attempt })
	if !ok {
		return grant{}, false
	}
	return decodeGrant(content)
}

// expired reports whether the grant's time is over.
func (s *Signer) expired(g grant) bool { return !s.clock.Now().Before(g.expires) }

var encoding = base64.RawURLEncoding.Strict()

func seal(prefix string, key, content []byte) string {
	return prefix + encoding.EncodeToString(append(slices.Clip(content), mac(key, content)...))
}

// open returns the content of a token of the kind, if one of the keys has
// signed it.
func (s *Signer) open(prefix, token string, key func(signingKey) []byte) ([]byte, bool) {
	text, ok := strings.CutPrefix(token, prefix)
	if !ok || len(token) > maxTokenBytes || strings.ContainsAny(text, "\r\n") { // which the decoder passes over
		return nil, false
	}
	sealed, err := encoding.DecodeString(text)
	if err != nil || len(sealed) < sha256.Size {
		return nil, false
	}
	content, sum := sealed[:len(sealed)-sha256.Size], sealed[len(sealed)-sha256.Size:]
	for _, k := range s.keys {
		if hmac.Equal(mac(key(k), content), sum) {
			return content, true
		}
	}
	return nil, false
}
