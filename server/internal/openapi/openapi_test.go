package openapi_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/taskbridge/taskbridge/server/internal/openapi"
)

func TestWhatIsServedIsTheDocumentInDocs(t *testing.T) {
	source, err := os.ReadFile("../../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(source, openapi.Document()) {
		t.Error("the embedded copy is not docs/openapi.yaml: run go generate ./internal/openapi in server")
	}
	answer := httptest.NewRecorder()
	openapi.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil))
	if answer.Code != http.StatusOK || !bytes.Equal(answer.Body.Bytes(), source) || answer.Header().Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", answer.Code, answer.Header())
	}
}

func TestAClientThatHasTheDocumentIsToldSo(t *testing.T) {
	first := httptest.NewRecorder()
	openapi.Handler().ServeHTTP(first, httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil))
	request := httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil)
	request.Header.Set("If-None-Match", first.Header().Get("ETag"))
	second := httptest.NewRecorder()
	openapi.Handler().ServeHTTP(second, request)
	if second.Code != http.StatusNotModified || second.Body.Len() > 0 {
		t.Errorf("%d, %d bytes", second.Code, second.Body.Len())
	}
}

func TestACallerCannotChangeTheDocument(t *testing.T) {
	openapi.Document()[0] = 'X'
	if openapi.Document()[0] == 'X' {
		t.Error("it is changed")
	}
}
