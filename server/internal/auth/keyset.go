package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeySetBytes = 1 << 20
	maxKeys        = 64
	minRSABits     = 2048
)

// verificationKey is a public key of a set.
type verificationKey struct {
	id  string
	key any
	// algorithms are those that the key may be used with.
	algorithms []jose.SignatureAlgorithm
}

// keySet is a JSON Web Key Set, its public signature keys only.
type keySet struct {
	keys []verificationKey
	// ignored is how many keys the set has that are of no use here.
	ignored int
}

// candidates returns the keys that a token with this key id (which may be
// missing) and algorithm may have been signed with.
func (s keySet) candidates(id string, algorithm jose.SignatureAlgorithm) []any {
	var keys []any
	for _, key := range s.keys {
		if id != "" && key.id != id {
			continue
		}
		for _, suitable := range key.algorithms {
			if suitable == algorithm {
				keys = append(keys, key.key)
			}
		}
	}
	return keys
}

// decodeKeySet reads a JSON Web Key Set. As RFC 7517 asks, keys that are not
// understood are ignored: of other kinds, for encryption, too weak, and such as
// should not be in public (secret or private ones). A set without any useful key
// is still one: it says that no token is good.
func decodeKeySet(raw []byte) (keySet, error) {
	var document struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	var set keySet
	switch err := json.Unmarshal(raw, &document); {
	case err != nil:
		return set, fmt.Errorf("it is no JSON Web Key Set: %w", err)
	case document.Keys == nil:
		return set, errors.New(`it is no JSON Web Key Set: it has no list "keys"`)
	case len(*document.Keys) > maxKeys:
		return set, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	for _, raw := range *document.Keys {
		key, ok := decodeKey(raw)
		if !ok {
			set.ignored++
			continue
		}
		set.keys = append(set.keys, key)
	}
	return set, nil
}

func decodeKey(raw []byte) (verificationKey, bool) {
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil || !jwk.IsPublic() || !jwk.Valid() || jwk.Use != "" && jwk.Use != "sig" {
		return verificationKey{}, false
	}
	var operations struct {
		KeyOps []string `json:"key_ops"`
	}
	if json.Unmarshal(raw, &operations) != nil {
		return verificationKey{}, false
	}
	verifies := len(operations.KeyOps) == 0
	for _, operation := range operations.KeyOps {
		verifies = verifies || operation == "verify"
	}
	if !verifies {
		return verificationKey{}, false
	}
	key := verificationKey{id: jwk.KeyID, key: jwk.Key}
	for _, algorithm := range algorithmsOf(jwk.Key) {
		if jwk.Algorithm == "" || jwk.Algorithm == string(algorithm) {
			key.algorithms = append(key.algorithms, algorithm)
		}
	}
	return key, len(key.algorithms) > 0
}

// algorithmsOf returns what a public key can be used with, of what is supported.
func algorithmsOf(key any) []jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() >= minRSABits {
			return []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return []jose.SignatureAlgorithm{jose.ES256}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

// verdict is what a key set says about a token.
type verdict int

const (
	// undecided: the set does not have the key, but a newer one may.
	undecided verdict = iota
	accepted
	refused
)
