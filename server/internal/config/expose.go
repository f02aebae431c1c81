package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// TLS is the server's certificate; both empty: it speaks plain HTTP.
type TLS struct{ CertFile, KeyFile string }

var exposeGroup = group{"TLS, browsers, connections", []setting{
	{"tls.certFile", "tls-cert-file", "FILE", "certificate and its chain (PEM), read again when it changes",
		text(func(c *Config) *string { return &c.TLS.CertFile })},
	{"tls.keyFile", "tls-key-file", "FILE", "its key",
		text(func(c *Config) *string { return &c.TLS.KeyFile })},
	{"cors.allowedOrigins", "cors-allowed-origins", "ORIGIN,…", "origins of web pages that may use the server besides its own, as https://app.example; or *",
		list(func(c *Config) *[]string { return &c.AllowedOrigins })},
	{"http.maxConnections", "http-max-connections", "N", "open connections; more wait until one is closed",
		number(func(c *Config) *int { return &c.HTTP.MaxConnections }, 1, 10_000_000)},
}}

func (c *Config) checkExposed() error {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return c.invalid("tls.certFile", errors.New("and tls.keyFile must be set together"))
	}
	for _, origin := range c.AllowedOrigins {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.ToLower(u.Scheme+"://"+u.Host) != origin || strings.Contains(origin, "*") {
			return c.invalid("cors.allowedOrigins", fmt.Errorf("must have origins in small letters, as https://app.example or http://localhost:3000, or *; not %q", origin))
		}
	}
	return nil
}
