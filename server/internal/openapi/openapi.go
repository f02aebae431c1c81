// Package openapi has the server's OpenAPI document and serves it.
//
// The document is docs/openapi.yaml. What is embedded here is a copy of it, since
// a program can embed nothing from outside of its module; "go generate" renews
// it, and a test fails where the two differ.
package openapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"slices"
	"time"
)

//go:generate cp ../../../docs/openapi.yaml openapi.yaml

//go:embed openapi.yaml
var document []byte

// Document returns a copy of the document: OpenAPI 3.1 as YAML.
func Document() []byte { return slices.Clone(document) }

// Handler answers with the document.
func Handler() http.Handler {
	sum := sha256.Sum256(document)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", "application/yaml")
		header.Set("ETag", tag)
		header.Set("Cache-Control", "no-cache") // may be kept, is to be asked for
		header.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}
