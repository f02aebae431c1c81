// Package openapitest checks what a server really answers against its OpenAPI
// document. It is for tests alone: the libraries behind it are in no program.
package openapitest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/taskbridge/taskbridge/server/internal/openapi"
)

// Contract is the document, ready to check with. It is safe for concurrent use.
//
// It is stricter than the document in one thing: a client must bear with members
// of an answer that it does not know, but this server must not send any that the
// document does not tell of.
type Contract struct {
	doc     *openapi3.T
	paths   []string // templates, those with fewer parameters first
	schemas *schemas
}

// Load reads the document that the server embeds. The error is whatever is wrong
// with it as OpenAPI 3.1.
func Load() (*Contract, error) { return Parse(openapi.Document()) }

// Parse reads another document.
func Parse(document []byte) (*Contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	if !doc.IsOpenAPI31OrLater() {
		return nil, fmt.Errorf("openapi: the document has version %s", doc.OpenAPI)
	}
	schemas, err := newSchemas(document)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	c := &Contract{doc: doc, paths: slices.Collect(maps.Keys(doc.Paths.Map())), schemas: schemas}
	slices.SortFunc(c.paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "{"), strings.Count(b, "{")), cmp.Compare(a, b))
	})
	return c, nil
}

// find returns the template that a path fits, and what stands in the place of
// its parameters; "" for none. (A router of a library would clean the path
// first, and some requests of tests are anything but clean.)
func (c *Contract) find(path string) (template string, parameters map[string]string) {
	have := strings.Split(path, "/")
	for _, template := range c.paths {
		want := strings.Split(template, "/")
		if len(want) != len(have) {
			continue
		}
		parameters, fits := map[string]string{}, true
		for i, part := range want {
			name, isParameter := strings.CutPrefix(part, "{")
			value, err := url.PathUnescape(have[i])
			switch {
			case err != nil, isParameter && value == "":
				fits = false
			case isParameter:
				parameters[strings.TrimSuffix(name, "}")] = value
			case part != value:
				fits = false
			}
		}
		if fits {
			return template, parameters
		}
	}
	return "", nil
}

// errNoRoute: the document knows no such route.
var errNoRoute = errors.New("the document knows no such route")

// input finds the operation of a request.
func (c *Contract) input(r *http.Request, body []byte) (*openapi3filter.RequestValidationInput, error) {
	path, parameters := c.find(r.URL.EscapedPath())
	item := c.doc.Paths.Value(path)
	if item == nil || item.GetOperation(r.Method) == nil {
		return nil, errNoRoute
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return &openapi3filter.RequestValidationInput{
		Request: r, PathParams: parameters,
		Route: &routers.Route{
			Spec: c.doc, Path: path, PathItem: item, Method: r.Method, Operation: item.GetOperation(r.Method),
		},
		Options: &openapi3filter.Options{
			AuthenticationFunc:    openapi3filter.NoopAuthenticationFunc,
			IncludeResponseStatus: true,
			SkipSettingDefaults:   true,
		},
	}, nil
}

// CheckRequest reports what is wrong with a request: a server may bear with it
// all the same.
func (c *Contract) CheckRequest(r *http.Request, body []byte) error {
	input, err := c.input(r, body)
	if err != nil {
		return err
	}
	return openapi3filter.ValidateRequest(r.Context(), input)
}

// CheckAnswer reports what is wrong with the answer to a request, of which the
// method and the address alone are looked at. The body of an event stream is
// left to [Contract.CheckData].
//
// What the document knows no route for must be answered 404 NOT_FOUND, and what
// it knows no method for 405 METHOD_NOT_ALLOWED.
func (c *Contract) CheckAnswer(r *http.Request, status int, header http.Header, body []byte) error {
	request, err := c.input(r, nil)
	if errors.Is(err, errNoRoute) {
		return c.checkUnrouted(r, status, header, body)
	}
	options := *request.Options
	options.ExcludeResponseBody = true // the library compiles a schema each time it uses it
	if err := openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: status, Header: header, Options: &options,
	}); err != nil {
		return err
	}
	described := request.Route.Operation.Responses.Status(status)
	if r.Method == http.MethodHead || len(described.Value.Content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("an answer %d has a body", status)
		}
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	switch {
	case err != nil:
		return fmt.Errorf("content type %q: %w", header.Get("Content-Type"), err)
	case described.Value.Content[mediaType] == nil:
		return fmt.Errorf("an answer %d has the content type %s", status, mediaType)
	case mediaType != mediaJSON:
		return nil
	}
	at := []string{"paths", request.Route.Path, strings.ToLower(r.Method), "responses", strconv.Itoa(status)}
	if name, ok := strings.CutPrefix(described.Ref, "#/components/responses/"); ok {
		at = []string{"components", "responses", name}
	}
	return c.schemas.check(append(at, "content", mediaType, "schema"), body)
}

const mediaJSON = "application/json"

// checkUnrouted checks the answer to a request that no operation is there for.
func (c *Contract) checkUnrouted(r *http.Request, status int, header http.Header, body []byte) error {
	if r.Method == http.MethodHead && len(body) == 0 {
		if status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			return fmt.Errorf("%s %s is not in the document and was answered %d", r.Method, r.URL.Path, status)
		}
		return nil
	}
	if err := c.CheckSchema("Error", body); err != nil {
		return err
	}
	var answer struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	want := map[string]int{"NOT_FOUND": http.StatusNotFound, "METHOD_NOT_ALLOWED": http.StatusMethodNotAllowed}
	switch code, known := want[answer.Code]; {
	case status >= 400 && status < 500 && !known && slices.Contains([]string{"INVALID_REQUEST", "AUTHENTICATION_ERROR"}, answer.Code):
		return nil // refused before it was looked up
	case !known || status != code:
		return fmt.Errorf("%s %s is not in the document and was answered %d %s", r.Method, r.URL.Path, status, answer.Code)
	case status == http.StatusMethodNotAllowed && header.Get("Allow") == "":
		return errors.New("an answer 405 has no Allow header")
	}
	return nil
}

// CheckData reports what is wrong with the content of a data line of an event
// stream.
func (c *Contract) CheckData(data []byte) error { return c.CheckSchema("StreamData", data) }

// CheckFrame reports what is wrong with a frame that the server sends over a
// WebSocket.
func (c *Contract) CheckFrame(data []byte) error { return c.CheckSchema("ServerFrame", data) }

// CheckSchema reports why the JSON is none of the schema of that name.
func (c *Contract) CheckSchema(name string, data []byte) error {
	return c.schemas.check([]string{"components", "schemas", name}, data)
}
