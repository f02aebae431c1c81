package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// minSecret is the least that a secret may have: as much as its MAC.
const minSecret = sha256.Size

// SignIdentity returns the timestamp and the signature headers for the subject
// and scopes headers, as a proxy sends them (scopes "" where it sends none).
//
// The timestamp is Unix time in whole seconds, in decimal digits. The signature
// is the HMAC-SHA256, in hexadecimal digits, of these lines, joined by newlines,
// the last of them only where there is a scopes header:
//
//	taskbridge-identity-v1
//	TIMESTAMP
//	SUBJECT
//	SCOPES
//
// None of the values can have a newline in it. The first line keeps a secret
// that is used elsewhere too from lending its signatures.
func SignIdentity(secret []byte, subject, scopes string, at time.Time) (timestamp, signature string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	return timestamp, hex.EncodeToString(identityMAC(secret, timestamp, subject, scopes, scopes != ""))
}

func identityMAC(secret []byte, timestamp, subject, scopes string, hasScopes bool) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("taskbridge-identity-v1\n" + timestamp + "\n" + subject))
	if hasScopes {
		mac.Write([]byte("\n" + scopes))
	}
	return mac.Sum(nil)
}

var (
	errSignatureMissing = refuse(PresentedIdentity, "the identity is not signed")
	errSignatureWrong   = refuse(PresentedIdentity, "the identity's signature is wrong")
	errSignatureExpired = refuse(PresentedIdentity, "the identity's signature has expired")
	errSignatureEarly   = refuse(PresentedIdentity, "the identity's signature is not valid yet")
)

// checkSignature checks the signature before the time that it vouches for, and
// takes as long wherever they differ.
func (i *Identity) checkSignature(subject, scopes string, hasScopes bool, timestamp, signature string) error {
	if timestamp == "" || signature == "" {
		return errSignatureMissing
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != timestamp {
		return errSignatureWrong
	}
	given, err := hex.DecodeString(signature)
	if err != nil {
		return errSignatureWrong
	}
	good := false
	for _, secret := range i.opts.Secrets {
		good = hmac.Equal(given, identityMAC(secret, timestamp, subject, scopes, hasScopes)) || good
	}
	now, at := i.opts.Clock.Now(), time.Unix(seconds, 0)
	switch {
	case !good:
		return errSignatureWrong
	case at.After(now.Add(clockSkew)):
		return errSignatureEarly
	case !now.Before(at.Add(i.opts.MaxAge)):
		return errSignatureExpired
	}
	return nil
}
