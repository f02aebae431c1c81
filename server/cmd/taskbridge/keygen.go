package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/auth"
)

const keygenHelp = `Make an API key. The entry for the file of keys goes to standard output, so
that it can be appended to a file that begins with "keys:", and the key, once,
to standard error. The key cannot be had again: the entry has its hash alone.

Usage:
  taskbridge keygen --subject NAME --scope SCOPE… [flags] >> keys.yaml

`

// keygen prints a new key and its entry.
func keygen(args []string, stdout, stderr io.Writer) int {
	flags := pflag.NewFlagSet("keygen", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	var (
		entry   auth.KeyEntry
		scopes  []string
		expires time.Duration
	)
	flags.StringVar(&entry.Subject, "subject", "", "whose key it is: the owner of the tasks that it creates")
	flags.StringSliceVar(&scopes, "scope", nil, "tasks:read, tasks:write, admin or worker; may be repeated")
	flags.StringVar(&entry.ID, "id", "", "name of the key, no secret (default: a random one)")
	flags.DurationVar(&expires, "expires-in", 0, "time after which it is refused, as 2160h (default: never)")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return show(stdout, stderr, keygenHelp+flags.FlagUsages())
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil && expires < 0:
		err = errors.New("--expires-in must not be negative")
	}
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	for _, scope := range scopes {
		entry.Scopes = append(entry.Scopes, taskbridge.Scope(scope))
	}
	if entry.ID == "" {
		var random [4]byte
		_, _ = rand.Read(random[:]) // never fails: see package crypto/rand
		entry.ID = "key-" + hex.EncodeToString(random[:])
	}
	if expires > 0 {
		entry.ExpiresAt = time.Now().Add(expires).UTC().Truncate(time.Second)
	}
	key, entry, err := auth.NewKey(entry)
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	text, err := entry.FileText()
	if err != nil {
		complain(stderr, err)
		return exitFailed
	}
	// The entry first: a key whose entry is lost is no use.
	if status := show(stdout, stderr, text); status != exitOK {
		return status
	}
	say(stderr, "The key, which cannot be shown again:\n\n    "+key+"\n\n")
	return exitOK
}
