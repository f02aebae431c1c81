package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"go.yaml.in/yaml/v3"
)

const (
	keyPrefix  = "tbk_" // so that scanners for leaked secrets find them
	keyBytes   = 32
	hashPrefix = "sha256:"
	maxKeyID   = 64
)

// keyLength is how long a key is, as text.
var keyLength = len(keyPrefix) + base64.RawURLEncoding.EncodedLen(keyBytes)

// KeyEntry is an API key as the file of keys has it. The key itself is nowhere
// in it.
type KeyEntry struct {
	// ID tells the keys apart for people; it is no secret.
	ID string `yaml:"id"`
	// Hash is "sha256:" and the hash of the whole key in hexadecimal digits.
	//
	// One round of SHA-256 is enough, and no salt is needed: a key has 256
	// random bits, so there is no list to try and nothing to share work over.
	// What slow hashes are for, passwords that people think of, is refused by
	// its form.
	Hash    string `yaml:"hash"`
	Subject string `yaml:"subject"`
	// Scopes must not be empty.
	Scopes []taskbridge.Scope `yaml:"scopes,flow"`
	// ExpiresAt is when the key stops being good; zero: never.
	ExpiresAt time.Time `yaml:"expiresAt,omitempty"`
}

// NewKey makes a key for what the entry says and completes the entry: its Hash
// is set. The key is shown once, here, and cannot be had again.
func NewKey(entry KeyEntry) (key string, complete KeyEntry, err error) {
	var random [keyBytes]byte
	_, _ = rand.Read(random[:]) // never fails: see package crypto/rand
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(key))
	entry.Hash = hashPrefix + hex.EncodeToString(sum[:])
	if _, err := entry.check(); err != nil {
		return "", KeyEntry{}, fmt.Errorf("auth: %w", err)
	}
	return key, entry, nil
}

// FileText returns the entry as it is to be put below "keys:" in the file.
func (e KeyEntry) FileText() (string, error) {
	raw, err := yaml.Marshal([]KeyEntry{e})
	if err != nil {
		return "", fmt.Errorf("auth: entry of a key: %w", err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(raw)) {
		text.WriteString("  " + line)
	}
	return text.String(), nil
}

// check says what is wrong with an entry, and decodes the hash.
func (e KeyEntry) check() (sum [sha256.Size]byte, err error) {
	switch {
	case e.ID == "" || len(e.ID) > maxKeyID:
		return sum, fmt.Errorf("id must have 1 to %d bytes", maxKeyID)
	case checkSubject(e.ID) != nil:
		return sum, fmt.Errorf("id %w", checkSubject(e.ID))
	case checkSubject(e.Subject) != nil:
		return sum, fmt.Errorf("subject %w", checkSubject(e.Subject))
	case len(e.Scopes) == 0:
		return sum, errors.New("scopes must not be empty")
	case checkScopes(e.Scopes) != nil:
		return sum, fmt.Errorf("scopes %w", checkScopes(e.Scopes))
	}
	digits, ok := strings.CutPrefix(e.Hash, hashPrefix)
	if n, err := hex.Decode(sum[:], []byte(digits[:min(len(digits), 2*len(sum))])); !ok || err != nil ||
		n != len(sum) || len(digits) != 2*len(sum) {
		return sum, fmt.Errorf("hash must be %q and %d hexadecimal digits", hashPrefix, 2*len(sum))
	}
	return sum, nil
}

// validKey reports whether a text has the form of a key.
func validKey(key string) bool {
	body, ok := strings.CutPrefix(key, keyPrefix)
	if !ok || len(key) != keyLength {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(body)
	return err == nil
}
