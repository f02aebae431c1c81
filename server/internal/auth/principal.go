package auth

import (
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// maxSubject is the most bytes that a subject may have.
const maxSubject = 255

var (
	errSubjectEmpty   = errors.New("must not be empty")
	errSubjectLong    = fmt.Errorf("must be at most %d bytes", maxSubject)
	errSubjectControl = errors.New("must be Unicode text without control characters")
)

// checkSubject says what is wrong with a subject. Subjects are compared byte for
// byte, stored, and sent as JSON: bytes that are no text would all turn into
// U+FFFD on the way and make one owner of several, so neither is let in.
func checkSubject(subject string) error {
	switch {
	case subject == "":
		return errSubjectEmpty
	case len(subject) > maxSubject:
		return errSubjectLong
	}
	for _, c := range subject {
		if c == utf8.RuneError || unicode.IsControl(c) {
			return errSubjectControl
		}
	}
	return nil
}

// allScopes are the scopes there are, in the order in which principals have them.
var allScopes = []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite, taskbridge.ScopeAdmin, taskbridge.ScopeWorker}

// orderScopes returns a new slice of those scopes that there are, each once.
func orderScopes(given []taskbridge.Scope) []taskbridge.Scope {
	var scopes []taskbridge.Scope
	for _, scope := range allScopes {
		if slices.Contains(given, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// checkScopes refuses scopes that there are not: where an operator names them, a
// slip must not go unnoticed.
func checkScopes(given []taskbridge.Scope) error {
	for _, scope := range given {
		if !slices.Contains(allScopes, scope) {
			return fmt.Errorf("has %q, which is none of %q", scope, allScopes)
		}
	}
	return nil
}
