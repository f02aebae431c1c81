package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// apiClient is what the cluster asks its own API server with, as the administrator.
type apiClient struct {
	server, token string
	http          *http.Client
}

func newAPIClient(l *layout) (*apiClient, error) {
	authority, err := os.ReadFile(l.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &apiClient{l.apiserver(), l.adminToken, &http.Client{
		Timeout: 5 * time.Second,
		// Connections are not kept: the server is killed now and then.
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}}, nil
}

// statusError is an answer that is no success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// call sends body, if there is one, and reads the answer into v, if there is one.
func (a *apiClient) call(ctx context.Context, method, path string, body, v any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.server+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return &statusError{response.StatusCode, fmt.Sprintf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))}
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer, v)
}

// nodeReady is nil once pods can be scheduled to the node.
func (c *Cluster) nodeReady(ctx context.Context) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key, Effect string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.api.call(ctx, http.MethodGet, "/api/v1/nodes/"+NodeName, nil, &node); err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		// Without its controller a taint stays.
		if strings.HasPrefix(taint.Key, "node.kubernetes.io/") && c.part("kube-controller-manager").running() {
			return fmt.Errorf("the node has the taint %s:%s", taint.Key, taint.Effect)
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
	}
	return errors.New("the node has told nothing of itself yet")
}

// serviceAccount is nil once the default namespace takes pods.
func (c *Cluster) serviceAccount(ctx context.Context) error {
	return errors.Join(
		c.api.call(ctx, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", nil, nil),
		c.api.call(ctx, http.MethodGet, "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", nil, nil),
	)
}
