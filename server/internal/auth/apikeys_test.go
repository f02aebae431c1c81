package auth

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestAKeyIsGoodForItsSubjectAndScopes(t *testing.T) {
	reader, readerText := testKey(t, KeyEntry{ID: "reader", Subject: "alice", Scopes: readOnly})
	writer, writerText := testKey(t, KeyEntry{ID: "writer", Subject: "alice", Scopes: readWrite})
	admin, adminText := testKey(t, KeyEntry{ID: "admin", Subject: "root", Scopes: adminOnly})
	worker, workerText := testKey(t, KeyEntry{ID: "worker", Subject: "pool", Scopes: worksOnly})
	stranger, _ := testKey(t, KeyEntry{ID: "stranger", Subject: "mallory", Scopes: adminOnly})
	f := openKeyFile(t, "keys:\n"+readerText+writerText+adminText+workerText)
	f.good(reader, "alice", readOnly)
	f.good(writer, "alice", readWrite)
	f.good(admin, "root", adminOnly)
	f.good(worker, "pool", worksOnly)
	for name, key := range map[string]string{
		"unknown":         stranger,
		"empty":           "",
		"prefix alone":    "tbk_",
		"cut short":       reader[:len(reader)-1],
		"longer":          reader + "A",
		"other case":      strings.ToUpper(reader),
		"without prefix":  strings.TrimPrefix(reader, keyPrefix),
		"other last bits": reader[:len(reader)-1] + "_", // decodes to no whole number of bytes
		"a password":      keyPrefix + "correct horse battery staple",
		"a hash":          hashOf(t, reader),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.keys.Verify(key)
			wantRefusal(t, err, errKeyUnknown)
		})
	}
}

func hashOf(t *testing.T, key string) string {
	t.Helper()
	_, entry, err := NewKey(KeyEntry{ID: "x", Subject: "x", Scopes: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(entry.Hash, key) {
		t.Fatal("the entry holds the key")
	}
	return entry.Hash
}

func TestAKeyEndsWhenItExpires(t *testing.T) {
	key, text := testKey(t, KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly, ExpiresAt: noon.Add(time.Minute)})
	f := openKeyFile(t, "keys:\n"+text)
	f.clock.Advance(time.Minute - time.Nanosecond)
	f.good(key, "alice", readOnly)
	f.clock.Advance(time.Nanosecond)
	f.bad(key, errKeyExpired)
}

func TestAKeyFileMayBeJSON(t *testing.T) {
	key, entry, err := NewKey(KeyEntry{ID: "k", Subject: "alice", Scopes: readWrite})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"id": "k", "hash": entry.Hash, "subject": "alice", "scopes": entry.Scopes, "expiresAt": noon.Add(time.Minute),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	f := openKeyFile(t, string(raw))
	f.good(key, "alice", readWrite)
	f.clock.Advance(time.Minute)
	f.bad(key, errKeyExpired)
}

func TestAKeyFileWithAMistakeIsRefusedAndNotQuoted(t *testing.T) {
	key, entry, err := NewKey(KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	line := func(format string, args ...any) string { return "keys:\n- {" + fmt.Sprintf(format, args...) + "}\n" }
	good := fmt.Sprintf("id: k, hash: %q, subject: alice, scopes: [tasks:read]", entry.Hash)
	if _, err := decodeKeys([]byte(line("%s", good))); err != nil {
		t.Fatalf("the good one is refused: %v", err)
	}
	for name, test := range map[string]struct{ content, want string }{
		"empty":                {"", "it is empty"},
		"comments only":        {"# nothing\n", "it is empty"},
		"null":                 {"null\n", `no list "keys"`},
		"another list":         {"users: []\n", "see line 1"},
		"keys is text":         {"keys: " + key + "\n", "see line 1"},
		"unknown field":        {line("%s, %s: 1", good, key), "see line 2"},
		"key for a hash":       {line("id: k, hash: %s, subject: alice, scopes: [admin]", key), "number 1: hash must be"},
		"hash without a name":  {line("id: k, hash: %q, subject: a, scopes: [admin]", entry.Hash[7:]), "number 1: hash must be"},
		"short hash":           {line("id: k, hash: %q, subject: a, scopes: [admin]", entry.Hash[:70]), "number 1: hash must be"},
		"long hash":            {line("id: k, hash: %q, subject: a, scopes: [admin]", entry.Hash+"00"), "number 1: hash must be"},
		"hash of other digits": {line("id: k, hash: %q, subject: a, scopes: [admin]", "sha256:"+strings.Repeat("x", 64)), "number 1: hash must be"},
		"no id":                {line("hash: %q, subject: a, scopes: [admin]", entry.Hash), "number 1: id must have"},
		"no subject":           {line("id: k, hash: %q, scopes: [admin]", entry.Hash), "number 1: subject must not be empty"},
		"control character":    {line(`id: k, hash: %q, subject: "a\nb", scopes: [admin]`, entry.Hash), "number 1: subject must be Unicode"},
		"no scopes":            {line("id: k, hash: %q, subject: a", entry.Hash), "number 1: scopes must not be empty"},
		"unknown scope":        {line("id: k, hash: %q, subject: a, scopes: [root]", entry.Hash), `"root"`},
		"bad time":             {line("%s, expiresAt: %s", good, key), "number 1: expiresAt must be"},
		"day for a time":       {line("%s, expiresAt: 2030-01-01", good), "number 1: expiresAt must be"},
		"empty time":           {line(`%s, expiresAt: ""`, good), "number 1: expiresAt must be"},
		"twice":                {line("%s", good) + "- {" + good + "}\n", "number 2 has the id or the hash"},
		"two documents":        {line("%s", good) + "---\n" + line("%s", good), "more than one document"},
		"an alias":             {"keys: *" + key + "\n", "no list of keys"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeKeys([]byte(test.content))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if strings.Contains(err.Error(), key[:7]) {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestAServerDoesNotStartWithoutItsKeyFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "keys.yaml")
	for name, test := range map[string]struct {
		opts APIKeyOptions
		want string
	}{
		"no path":      {APIKeyOptions{}, "auth: the file of API keys has no path"},
		"missing":      {APIKeyOptions{File: missing}, "auth: the file of API keys " + missing + ": "},
		"negative":     {APIKeyOptions{File: missing, ReloadInterval: -1}, "must not be negative"},
		"stale before": {APIKeyOptions{File: missing, ReloadInterval: time.Hour, MaxStale: time.Minute}, "before it is read again"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := OpenAPIKeys(test.opts); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestANewKeyIsRandomAndItsEntryIsChecked(t *testing.T) {
	entry := KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly}
	first, one, err := NewKey(entry)
	if err != nil {
		t.Fatal(err)
	}
	second, other, err := NewKey(entry)
	if err != nil {
		t.Fatal(err)
	}
	if first == second || one.Hash == other.Hash || !validKey(first) || !validKey(second) {
		t.Errorf("keys %d and %d bytes long, hashes %s and %s", len(first), len(second), one.Hash, other.Hash)
	}
	if _, _, err := NewKey(KeyEntry{ID: "k", Subject: "alice", Scopes: []taskbridge.Scope{"root"}}); err == nil {
		t.Error("a key with an unknown scope was made")
	}
}

func BenchmarkAPIKeyVerify(b *testing.B) {
	key, entry, err := NewKey(KeyEntry{ID: "k", Subject: "alice", Scopes: readOnly})
	if err != nil {
		b.Fatal(err)
	}
	text, err := entry.FileText()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys:\n"+text), 0o600); err != nil {
		b.Fatal(err)
	}
	keys, err := OpenAPIKeys(APIKeyOptions{File: path})
	if err != nil {
		b.Fatal(err)
	}
	defer keys.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Verify(key); err != nil {
			b.Fatal(err)
		}
	}
}
