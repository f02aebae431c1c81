package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/taskbridge/taskbridge/fakes"
)

// The tests' provider and its keys. Its names are those of the algorithms.
const (
	issuer   = "https://id.example"
	audience = "taskbridge"
)

// signers are private keys by key id; "foreign" is of another provider.
var signers = sync.OnceValue(func() map[string]any {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	return map[string]any{
		"rs":      newRSA(2048),
		"ps":      newRSA(2048),
		"es":      newEC(elliptic.P256()),
		"ed":      ed,
		"foreign": newRSA(2048),
	}
})

func newRSA(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(err)
	return key
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(err)
	return key
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func publicJWK(id string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: signers()[id].(crypto.Signer).Public(), KeyID: id, Use: "sig"}
}

// setOf is the JSON Web Key Set of the keys.
func setOf(keys ...any) string {
	raw, err := json.Marshal(map[string]any{"keys": append([]any{}, keys...)})
	must(err)
	return string(raw)
}

func providerSet() string {
	return setOf(publicJWK("rs"), publicJWK("ps"), publicJWK("es"), publicJWK("ed"))
}

// claimsOf are those of a good token, changed; nil takes one away.
func claimsOf(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": issuer, "aud": audience, "sub": "alice", "scope": "tasks:read tasks:write openid",
		"exp": noon.Add(time.Hour).Unix(), "nbf": noon.Unix(), "iat": noon.Unix(),
	}
	maps.Copy(claims, changes)
	for name, value := range claims {
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// token signs the claims with the key of that id. The header's kid is key
// unless "-", which leaves it out.
func token(algorithm jose.SignatureAlgorithm, key, kid string, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	must(err)
	return tokenOver(algorithm, key, kid, payload)
}

func tokenOver(algorithm jose.SignatureAlgorithm, key, kid string, payload []byte) string {
	jwk := jose.JSONWebKey{Key: signers()[key], KeyID: kid}
	if kid == "-" {
		jwk.KeyID = ""
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jwk}, (&jose.SignerOptions{}).WithType("JWT"))
	must(err)
	signed, err := signer.Sign(payload)
	must(err)
	text, err := signed.CompactSerialize()
	must(err)
	return text
}

// goodToken is one of alice that is good for an hour.
func goodToken(changes map[string]any) string {
	return token(jose.ES256, "es", "es", claimsOf(changes))
}

// rawToken puts a token together by hand: sign gets what is signed.
func rawToken(header string, payload []byte, sign func(input []byte) []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	input := encode([]byte(header)) + "." + encode(payload)
	return input + "." + encode(sign([]byte(input)))
}

func signRS256(key string) func([]byte) []byte {
	return func(input []byte) []byte {
		sum := sha256.Sum256(input)
		signature, err := rsa.SignPKCS1v15(rand.Reader, signers()[key].(*rsa.PrivateKey), crypto.SHA256, sum[:])
		must(err)
		return signature
	}
}

func signHS256(secret []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(input)
		return mac.Sum(nil)
	}
}

func unsigned([]byte) []byte { return nil }

// verifier is a JWT over a file of the provider's keys.
type verifier struct {
	*JWT
	clock *fakes.ManualClock
}

func newVerifier(t testing.TB, change func(*JWTOptions)) *verifier {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(providerSet()), 0o600); err != nil {
		t.Fatal(err)
	}
	clock := newClock()
	opts := JWTOptions{Issuer: issuer, Audiences: []string{audience, "other"}, KeysFile: path, Clock: clock}
	if change != nil {
		change(&opts)
	}
	j, err := OpenJWT(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return &verifier{j, clock}
}
