// Command workload is what the pods of the smoke tests run: it asks addresses, and
// writes the answers where the kubelet reads them.
package main

import (
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
	if err := os.WriteFile("/dev/termination-log", []byte(result), 0); err != nil { //nolint:gosec // it is there
		fmt.Println(err)
		os.Exit(4)
	}
	fmt.Println(result)
	if err != nil {
		os.Exit(3)
	}
}

func run(what string, args []string) (string, error) {
	client := &http.Client{Timeout: time.Minute}
	switch what {
	case "whoami":
		return fmt.Sprintf("user %d", os.Getuid()), nil
	case "get": // an address on the host
		response, err := client.Get(args[0])
		return answer(response, err)
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
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
		host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
		request, err := http.NewRequest(http.MethodGet, "https://"+host+args[0], nil)
		if err != nil {
			return "", err
		}
		request.Header.Set("Authorization", "Bearer "+string(token))
		response, err := client.Do(request)
		return answer(response, err)
	default:
		return "", fmt.Errorf("nothing is known of %q", what)
	}
}

// answer is the status, and the body where that is text.
func answer(response *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 100))
	if response.Header.Get("Content-Type") == "application/json" {
		return response.Status, err
	}
	return response.Status + " " + string(body), err
}
