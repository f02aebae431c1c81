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

// secure returns the settings of a server with a certificate of its own, and a
// client that trusts it and speaks that version of HTTP.
func secure(t *testing.T, version int) (args []string, client *http.Client) {
	t.Helper()
	certFile, keyFile, parsed := writeCertificate(t, t.TempDir(), 1)
	return []string{"--tls-cert-file", certFile, "--tls-key-file", keyFile}, trusting(t, version, parsed)
}

func trusting(t *testing.T, version int, certificates ...*x509.Certificate) *http.Client {
	roots := x509.NewCertPool()
	for _, c := range certificates {
		roots.AddCert(c)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: version == 2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: ofVersion{t, transport, version}}
}

// ofVersion checks that requests go by the version of HTTP that a test is about:
// all but the handshakes of WebSockets, which there are over HTTP/1.1 alone.
type ofVersion struct {
	t *testing.T
	*http.Transport
	version int
}

func (v ofVersion) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := v.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	want := v.version
	if r.Header.Get("Upgrade") != "" {
		want = 1
	}
	if response.ProtoMajor != want {
		v.t.Errorf("%s %s was answered by %s, not HTTP/%d", r.Method, r.URL.Path, response.Proto, want)
	}
	return response, nil
}

func TestOverTLSEveryTransportRunsOnBothVersionsOfHTTPAndIsCutByAShutdown(t *testing.T) {
	for _, version := range []int{1, 2} {
		args, client := secure(t, version)
		s := startServer(t, load(t, append(args, "--store", "memory")...), openStore)
		if !strings.HasPrefix(s.url, "https://") {
			t.Errorf("announced as %s", s.url)
		}
		s.client = client
		ending, _ := s.demo(nil, "ending", 20)
		lasting, _ := s.demo(nil, "lasting", 20)
		followers := s.followBy(transports, map[string]string{ending: "", lasting: ""}, nil)
		for _, f := range append(followers[ending], followers[lasting]...) {
			f.until(5)
		}
		if status, answer := s.exchange("POST", "/api/v1/tasks/"+ending+"/cancel", nil, ""); status != http.StatusAccepted {
			t.Errorf("%d %v", status, answer)
		}
		for _, f := range followers[ending] {
			f.wantEnd(io.EOF)
		}
		s.stop()
		for _, f := range followers[lasting] {
			if f.transport != "longpoll" { // whose next request finds nobody
				f.wantEnd(errCut)
			}
		}
		if err := <-s.done; err != nil {
			t.Error(err)
		}
	}
}

func TestACertificateIsReplacedUnderStreamsThatLiveOn(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, first := writeCertificate(t, dir, 1)
	s := startServer(t, load(t, "--store", "memory", "--tls-cert-file", certFile, "--tls-key-file", keyFile), openStore)
	s.client = trusting(t, 1, first)
	task, _ := s.demo(nil, "k", 20)
	followers := s.followBy([]string{"sse", "websocket"}, map[string]string{task: ""}, nil)[task]
	s.client = trusting(t, 2, first)
	followers = append(followers, s.followBy([]string{"sse"}, map[string]string{task: ""}, nil)[task]...)

	_, _, second := writeCertificate(t, dir, 2)
	roots := x509.NewCertPool()
	roots.AddCert(first)
	roots.AddCert(second)
	for limit := time.Now().Add(waitLimit); ; {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if serial == 2 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the new certificate is never shown")
		}
	}
	for _, f := range followers {
		f.until(f.seen() + 5)
	}
	s.client = trusting(t, 2, second)
	if status, answer := s.exchange("POST", "/api/v1/tasks/"+task+"/cancel", nil, ""); status != http.StatusAccepted {
		t.Errorf("%d %v", status, answer)
	}
	for _, f := range followers {
		f.wantEnd(io.EOF)
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
