package k8sjob

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// writeKubeconfig writes a file with two contexts: "one", the current one, which is
// nowhere, and "two" for the address.
func writeKubeconfig(t *testing.T, address string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(path, []byte(`
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: nowhere, cluster: {server: "http://127.0.0.1:1"}}
- {name: here, cluster: {server: "`+address+`"}}
users:
- {name: me, user: {token: secret}}
contexts:
- {name: one, context: {cluster: nowhere, user: me}}
- {name: two, context: {cluster: here, user: me}}
`), 0o600))
	return path
}

func TestAClientUsesTheContextThatItIsTold(t *testing.T) {
	t.Parallel()
	path := writeKubeconfig(t, "http://127.0.0.1:2")
	for name, want := range map[string]string{"": "http://127.0.0.1:1", "two": "http://127.0.0.1:2"} {
		config, err := restConfig(ClientOptions{Kubeconfig: path, Context: name})
		must(t, err)
		if config.Host != want || config.QPS != 500 || config.Burst != 1000 || config.UserAgent != "taskbridge" {
			t.Errorf("context %q: %+v", name, config)
		}
	}
	config, err := restConfig(ClientOptions{Kubeconfig: path, QPS: 7, Burst: 9, UserAgent: "mine"})
	must(t, err)
	if config.QPS != 7 || config.Burst != 9 || config.UserAgent != "mine" {
		t.Errorf("what was set is not there: %+v", config)
	}
	if _, err := NewClient(ClientOptions{Kubeconfig: path, Context: "three"}); err == nil || !strings.Contains(err.Error(), `"three"`) {
		t.Errorf("a context that is not there: %v", err)
	}
	if _, err := NewClient(ClientOptions{Kubeconfig: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func TestAClientNeverLooksAtAPersonsConfiguration(t *testing.T) {
	t.Setenv("KUBECONFIG", writeKubeconfig(t, "http://127.0.0.1:2"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := NewClient(ClientOptions{}); err == nil || !strings.HasPrefix(err.Error(), "kubernetes client: ") {
		t.Errorf("outside of a cluster it says %v", err)
	}
}

func TestWhatTheAPIServerWarnsOfIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "would violate PodSecurity"`)
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"a"}}`)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	var log bytes.Buffer
	client, err := NewClient(ClientOptions{
		Kubeconfig: writeKubeconfig(t, server.URL), Context: "two", Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	must(t, err)
	defer closeConnections(client)
	for range 3 {
		_, err := client.BatchV1().Jobs("default").Get(t.Context(), "a", metav1.GetOptions{})
		must(t, err)
	}
	if got := strings.Count(log.String(), "would violate PodSecurity"); got != 1 {
		t.Errorf("it is logged %d times: %s", got, log.String())
	}
}
