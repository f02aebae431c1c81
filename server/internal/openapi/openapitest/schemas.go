package openapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// open are the answers that a later server may add to.
var open = []string{
	"CreatedTask", "CancelledTask", "Task", "ListedTask", "TaskList", "EventPage", "Error",
	"Attempt", "StartedAttempt", "ReportedAttempt", "RefusedReport", "WorkerTask", "Done", "WorkerMessage",
}

// schemas are those of the document, each compiled when it is first asked for.
type schemas struct {
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
}

// documentURL is where the compiler finds the document; nothing is fetched.
const documentURL = "mem:///openapi.json"

func newSchemas(document []byte) (*schemas, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	components, _ := doc["components"].(map[string]any)
	all, _ := components["schemas"].(map[string]any)
	for _, name := range open {
		schema, ok := all[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("there is no schema %s", name)
		}
		if _, combined := schema["allOf"]; combined {
			schema["unevaluatedProperties"] = false
		} else {
			schema["additionalProperties"] = false
		}
	}
	// The compiler takes what a JSON decoder makes.
	asJSON, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, value); err != nil {
		return nil, err
	}
	return &schemas{compiler: compiler, compiled: map[string]*jsonschema.Schema{}}, nil
}

// check reports why the JSON is none of the schema at that place of the document.
func (s *schemas) check(place []string, data []byte) error {
	schema, err := s.compile(place)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("not one JSON value: %w", err)
	}
	return schema.Validate(value)
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1", "%", "%25", "{", "%7B", "}", "%7D")

func (s *schemas) compile(place []string) (*jsonschema.Schema, error) {
	var pointer strings.Builder
	for _, step := range place {
		pointer.WriteString("/" + pointerEscapes.Replace(step))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if schema := s.compiled[pointer.String()]; schema != nil {
		return schema, nil
	}
	schema, err := s.compiler.Compile(documentURL + "#" + pointer.String())
	if err != nil {
		return nil, fmt.Errorf("the document has no schema %s: %w", strings.Join(place, "/"), err)
	}
	s.compiled[pointer.String()] = schema
	return schema, nil
}
