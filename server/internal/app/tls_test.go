package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate writes a new one for 127.0.0.1.
func writeCertificate(t *testing.T, dir string, serial int64) (certFile, keyFile string, parsed *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, parsed
}

func TestOverTLSStreamsRunOnBothVersionsOfHTTP(t *testing.T) {
	certFile, keyFile, parsed := writeCertificate(t, t.TempDir(), 1)
	s := startServer(t, load(t, "--store", "memory", "--tls-cert-file", certFile, "--tls-key-file", keyFile), openStore)
	if !strings.HasPrefix(s.url, "https://") {
		t.Errorf("announced as %s", s.url)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	for _, version := range []int{1, 2} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: version == 2}
		client := &http.Client{Transport: transport}
		created, err := client.Post(s.url+"/api/v1/tasks", "application/json", strings.NewReader(`{"clientRequestId":"k","taskType":"demo","input":{"ticks":3,"tickMillis":1}}`))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(created.Body)
		if err != nil || created.Body.Close() != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(body), `"taskId":"`)
		task, _, _ := strings.Cut(rest, `"`)
		stream, err := client.Get(s.url + "/api/v1/tasks/" + task + "/events/stream")
		if err != nil {
			t.Fatal(err)
		}
		events, err := io.ReadAll(stream.Body)
		if err != nil || stream.Body.Close() != nil || stream.ProtoMajor != version || !strings.Contains(string(events), "TASK_COMPLETED") {
			t.Errorf("HTTP/%d over %s: %s, %v", version, stream.Proto, events, err)
		}
		transport.CloseIdleConnections()
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestACertificateIsReadAgainWhenItChangesAndKeptWhileItIsBroken(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := writeCertificate(t, dir, 1)
	c, err := openCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func(after time.Duration) int64 {
		t.Helper()
		parsed, err := x509.ParseCertificate(c.get(c.looked.Add(after)).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return parsed.SerialNumber.Int64()
	}
	writeCertificate(t, dir, 2)
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(certFile, later, later); err != nil {
		t.Fatal(err)
	}
	if got := serial(0); got != 1 {
		t.Errorf("looked at once: %d", got)
	}
	if got := serial(2 * certificateLook); got != 2 {
		t.Errorf("after the change: %d", got)
	}
	if err := os.WriteFile(keyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(keyFile, later, later); err != nil {
		t.Fatal(err)
	}
	if got := serial(2 * certificateLook); got != 2 {
		t.Errorf("with a broken key: %d", got)
	}
	if _, err := openCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a broken key was taken")
	}
}
