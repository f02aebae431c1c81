package auth

import (
	"crypto/elliptic"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestKeysThatAreOfNoUseAreIgnored(t *testing.T) {
	usable := func(change func(*jose.JSONWebKey)) jose.JSONWebKey {
		key := publicJWK("rs")
		change(&key)
		return key
	}
	withOps := func(ops string) json.RawMessage {
		raw, err := json.Marshal(publicJWK("rs"))
		must(err)
		return json.RawMessage(strings.Replace(string(raw), "{", `{"key_ops":`+ops+`,`, 1))
	}
	for _, test := range []struct {
		name   string
		key    any
		usable bool
	}{
		{"for signatures", publicJWK("rs"), true},
		{"for anything", usable(func(k *jose.JSONWebKey) { k.Use = "" }), true},
		{"for this algorithm", usable(func(k *jose.JSONWebKey) { k.Algorithm = "RS256" }), true},
		{"to verify", withOps(`["verify"]`), true},
		{"for encryption", usable(func(k *jose.JSONWebKey) { k.Use = "enc" }), false},
		{"for another algorithm", usable(func(k *jose.JSONWebKey) { k.Algorithm = "RS512" }), false},
		{"to sign", withOps(`["sign"]`), false},
		{"bad operations", withOps(`"verify"`), false},
		{"private", usable(func(k *jose.JSONWebKey) { k.Key = signers()["rs"] }), false},
		{"a secret", map[string]string{"kty": "oct", "kid": "rs", "k": "c2VjcmV0"}, false},
		{"too short", jose.JSONWebKey{Key: newRSA(1024).Public(), KeyID: "rs"}, false},
		{"another curve", jose.JSONWebKey{Key: newEC(elliptic.P384()).Public(), KeyID: "rs"}, false},
		{"of an unknown kind", map[string]string{"kty": "LATTICE", "kid": "rs"}, false},
		{"without a kind", map[string]string{"kid": "rs"}, false},
		{"a number", 7, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, err := decodeKeySet([]byte(setOf(publicJWK("es"), test.key)))
			if err != nil {
				t.Fatal(err)
			}
			if got := len(set.candidates("rs", jose.RS256)) == 1; got != test.usable {
				t.Errorf("usable: %v, want %v", got, test.usable)
			}
			if len(set.candidates("es", jose.ES256)) != 1 {
				t.Error("the key beside it is not usable any more")
			}
		})
	}
	for name, raw := range map[string]string{
		"no JSON": "<html>", "a list": "[]", "no keys": "{}", "keys is null": `{"keys":null}`, "keys is text": `{"keys":"x"}`,
		"empty": "", "more behind it": `{"keys":[]}{"keys":[]}`, "too many": setOf(make([]any, maxKeys+1)...),
	} {
		if _, err := decodeKeySet([]byte(raw)); err == nil {
			t.Errorf("%s: taken for a key set", name)
		}
	}
}

func TestAKeyOnlyServesTheAlgorithmThatItNames(t *testing.T) {
	set, err := decodeKeySet([]byte(setOf(jose.JSONWebKey{Key: publicJWK("rs").Key, KeyID: "rs", Algorithm: "PS256"})))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.candidates("rs", jose.RS256)) != 0 || len(set.candidates("", jose.PS256)) != 1 {
		t.Error("a key for PS256 serves RS256, or not PS256")
	}
}

func TestAKeysFileIsReadAgain(t *testing.T) {
	v := newVerifier(t, nil)
	path := v.opts.KeysFile
	text := goodToken(nil)
	got, err := v.Verify(t.Context(), text)
	wantPrincipal(t, got, err, "alice", readWrite)
	until(t, v.clock, defaultReload)
	replaceFile(t, path, setOf(publicJWK("rs")))
	v.clock.Advance(defaultReload)
	until(t, v.clock, settlePause)
	v.clock.Advance(settlePause)
	until(t, v.clock, defaultReload)
	_, err = v.Verify(t.Context(), text)
	wantRefusal(t, err, errJWTKey)
	got, err = v.Verify(t.Context(), token(jose.RS256, "rs", "rs", claimsOf(nil)))
	wantPrincipal(t, got, err, "alice", readWrite)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	v.clock.Advance(defaultStale + time.Second)
	_, err = v.Verify(t.Context(), text)
	wantUnavailable(t, err)
}
