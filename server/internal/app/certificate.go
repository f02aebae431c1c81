package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is that of the server, read again when its files have changed.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	changed [2]time.Time // of the files that current is of, or that were refused
	looked  time.Time
}

// certificateLook is how often handshakes look at the files.
const certificateLook = time.Second

// openCertificate reads the files, which must be good now.
func openCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	changed, err := c.times()
	if err != nil {
		return nil, err
	}
	if err := c.load(changed); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// config is for a server that speaks HTTP/2 and HTTP/1.1.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(time.Now()), nil },
	}
}

// get returns the certificate. Files that are missing or don't fit together, as
// between the writing of the one and of the other, leave the last one in use.
func (c *certificate) get(now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < certificateLook {
		return c.current
	}
	c.looked = now
	changed, err := c.times()
	if err == nil && changed == c.changed {
		return c.current
	}
	if err == nil {
		err = c.load(changed)
	}
	if err != nil {
		c.logger.Error("the certificate cannot be read again, the last one stays in use", "error", err)
	} else {
		c.logger.Info("the certificate has been read again")
	}
	return c.current
}

func (c *certificate) times() (changed [2]time.Time, err error) {
	for i, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return changed, fmt.Errorf("certificate: %w", err)
		}
		changed[i] = info.ModTime()
	}
	return changed, nil
}

func (c *certificate) load(changed [2]time.Time) error {
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate of %s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.changed = &loaded, changed
	return nil
}
