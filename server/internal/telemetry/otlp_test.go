package telemetry_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/server/internal/telemetry"
)

func TestSpansReachTheCollectorThatTheEnvironmentNames(t *testing.T) {
	received := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		received <- r.URL.Path + " " + r.Header.Get("X-Key") + " " + string(body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
	exporter, err := telemetry.NewExporter(t.Context(), "v1.2.3", discard)
	if err != nil {
		t.Fatal(err)
	}
	tel := telemetry.New(telemetry.Options{Tracer: exporter.TracerProvider()})
	_, done := tel.Begin(t.Context(), taskbridge.Operation{Kind: taskbridge.OperationCreate, TaskType: "demo"})
	done(nil)
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-received // Shutdown has sent it
	if !strings.HasPrefix(got, "/v1/traces k1 ") {
		t.Errorf("got %.40q", got)
	}
	for _, want := range []string{"task create", "taskbridge", "v1.2.3", "staging"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in what was sent", want)
		}
	}
}

func TestThereAreNoTracesUnlessAnEndpointIsNamed(t *testing.T) {
	const endpoint = "http://127.0.0.1:4318"
	for name, environment := range map[string]map[string]string{
		"nothing":         {},
		"exporter alone":  {"OTEL_TRACES_EXPORTER": "otlp"},
		"exporter none":   {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none"},
		"disabled":        {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SDK_DISABLED": "TRUE"},
		"blank":           {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
		"another signals": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range environment {
				t.Setenv(key, value)
			}
			exporter, err := telemetry.NewExporter(t.Context(), "", discard)
			if err != nil || exporter != nil {
				t.Fatalf("%v, %v", exporter, err)
			}
			if exporter.TracerProvider() != nil {
				t.Error("there is a tracer")
			}
			if err := exporter.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAWrongSettingOfTracesIsAnErrorThatNamesIt(t *testing.T) {
	for _, test := range []struct{ key, value string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://user:s3cret@localhost"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "smoke"},
		{"OTEL_TRACES_EXPORTER", "zipkin"},
		{"OTEL_TRACES_SAMPLER", "sometimes"},
		{"OTEL_RESOURCE_ATTRIBUTES", "no equals sign"},
	} {
		t.Run(test.key+"="+test.value, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
			t.Setenv(test.key, test.value)
			_, err := telemetry.NewExporter(t.Context(), "", discard)
			if err == nil || !strings.Contains(err.Error(), test.key) {
				t.Errorf("%v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

func TestACollectorThatIsAwayFillsNoLog(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		exporter, err := telemetry.NewExporter(t.Context(), "", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			otel.Handle(errors.New("connection refused"))
		}
		if n := strings.Count(log.String(), "traces cannot be sent"); n != 1 {
			t.Errorf("%d lines in the first minute", n)
		}
		<-time.After(2 * time.Minute)
		otel.Handle(errors.New("connection refused"))
		if !strings.Contains(log.String(), "errorsBefore=99") {
			t.Errorf("what was passed over is not told: %s", log.String())
		}
		if err := exporter.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
