package app

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans as an OpenTelemetry collector does, by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// of returns the spans of a trace by their names.
func (c *collector) of(trace string) map[string][]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := map[string][]*tracepb.Span{}
	for _, span := range c.spans {
		if hex.EncodeToString(span.TraceId) == trace {
			spans[span.Name] = append(spans[span.Name], span)
		}
	}
	return spans
}

// descends reports whether a span is below another one.
func (c *collector) descends(span, ancestor *tracepb.Span) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		byID[string(s.SpanId)] = s
	}
	for range len(c.spans) {
		if string(span.ParentSpanId) == string(ancestor.SpanId) {
			return true
		}
		if span = byID[string(span.ParentSpanId)]; span == nil {
			return false
		}
	}
	return false
}

func attribute(span *tracepb.Span, key string) string {
	for _, a := range span.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func TestTheCollectorGetsATasksWholeLifeInTheTraceOfTheRequestThatCreatedIt(t *testing.T) {
	const (
		traced, caller  = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
		untraced        = "11111111111111111111111111111111"
		watcher         = "22222222222222222222222222222222"
		secret, queried = "s3cret-of-the-input", "s3cret-of-the-query"
	)
	spans := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.URL)
	s := startServer(t, load(t, "--store", "memory"), openStore)
	create := func(key, traceparent string) (task string) {
		status, row := s.exchange("POST", "/api/v1/tasks", http.Header{"Traceparent": {traceparent}},
			fmt.Sprintf(`{"clientRequestId":%q,"taskType":"demo","input":{"ticks":90000,"tickMillis":20,"result":%q}}`, key, secret))
		if status != http.StatusCreated {
			t.Fatalf("%d %v", status, row)
		}
		return row["taskId"].(string)
	}
	task := create("k1", "00-"+traced+"-"+caller+"-01")
	other := create("k2", "00-"+untraced+"-"+caller+"-00")
	for _, id := range []string{task, other} {
		f, _ := s.follow("sse", id, http.Header{"Traceparent": {"00-" + watcher + "-" + caller + "-01"}}, "")
		f.until(5)
		s.exchange("POST", "/api/v1/tasks/"+id+"/cancel?"+queried, nil, "")
		f.wantEnd(io.EOF)
	}
	if err := s.end(); err != nil { // the last spans are sent by then
		t.Fatal(err)
	}

	life := spans.of(traced)
	request := life["POST /api/v1/tasks"]
	if len(request) != 1 || hex.EncodeToString(request[0].ParentSpanId) != caller || request[0].Kind != tracepb.Span_SPAN_KIND_SERVER {
		t.Fatalf("the request's span: %v, of the spans %v", request, slices.Sorted(maps.Keys(life)))
	}
	for _, name := range []string{"task create", "task submit", "task append", "task deliver", "task end"} {
		if len(life[name]) == 0 {
			t.Errorf("the trace has no span %q", name)
		}
		for _, span := range life[name] {
			if !spans.descends(span, request[0]) {
				t.Errorf("%q is not below the request: %v", name, span)
			}
			if id := attribute(span, "taskbridge.task.id"); id != task && name != "task create" {
				t.Errorf("%q names the task %q", name, id)
			}
		}
	}
	if unwanted := spans.of(untraced); len(unwanted) != 0 {
		t.Errorf("a task that its caller does not trace has the spans %v", slices.Sorted(maps.Keys(unwanted)))
	}
	if watching := spans.of(watcher); len(watching["GET /api/v1/tasks/:taskId/events/stream"]) != 2 {
		t.Errorf("the streams' own trace: %v", slices.Sorted(maps.Keys(watching)))
	}
	for _, span := range spans.spans {
		if id := attribute(span, "taskbridge.task.id"); id == other && span.Name != "task cancel" {
			t.Errorf("%q, of a task that nobody traces, is recorded", span.Name)
		}
		if text := span.String(); strings.Contains(text, secret) || strings.Contains(text, queried) {
			t.Errorf("a span has what a client alone is to know: %s", text)
		}
	}
}
