// Command workload is what the pods of the smoke tests run: it asks addresses, and
// writes the answers where the kubelet reads them.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Where the kubelet puts what a pod needs to reach the API server.
const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	result, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		result = "error: " + err.Error()
	}
	if err := os.WriteFile("/dev/termination-log", []byte(result), 0); err != nil {
		fmt.Println(err)
		os.Exit(4)
	}
	fmt.Println(result)
	if err != nil {
		os.Exit(3)
	}
}

func run(what string, args []string) (string, error) {
	switch what {
	case "whoami":
		return fmt.Sprintf("user %d", os.Getuid()), nil
	case "get": // an address on the host
		return get(args[0], "", new(http.Transport))
	case "api": // a path of the API server
		authority, err := os.ReadFile(account + "ca.crt")
		if err != nil {
			return "", err
		}
		token, err := os.ReadFile(account + "token")
		if err != nil {
			return "", err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(authority)
		host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
		return get("https://"+host+args[0], "Bearer "+string(token),
			&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}})
	default:
		return "", fmt.Errorf("nothing is known of %q", what)
	}
}

// get is the status, and the body where that is text.
func get(url, authorization string, transport *http.Transport) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil) //nolint:gosec // the test says which
	if err != nil {
		return "", err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.Header.Get("Content-Type") == "application/json" {
		return response.Status, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 100))
	return response.Status + " " + string(body), err
}
