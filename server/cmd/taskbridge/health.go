package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/taskbridge/taskbridge/server/internal/config"
)

const healthHelp = `Ask a server whether it answers: exit status 0 if it does, else 1 and why on
standard error. Meant for the machine or the container that the server runs in.

The address is that of --listen or TASKBRIDGE_LISTEN. Where it is every address
of the machine, loopback is asked. Settings in a file are not read.

Usage:
  taskbridge health [flags]

`

// healthTimeout is less than what the image's HEALTHCHECK allows.
const healthTimeout = 4 * time.Second

// health asks a server's /health. Its exit status is never exitUsage: container
// engines keep 2 for themselves.
func health(args, environ []string, stdout, stderr io.Writer) int {
	flags := pflag.NewFlagSet("health", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	listen := flags.String("listen", variable(environ, "TASKBRIDGE_LISTEN", config.Default().Listen), "address that the server listens on")
	secure := flags.Bool("tls", variable(environ, "TASKBRIDGE_TLS_CERT_FILE", "") != "", "it speaks TLS; by default if TASKBRIDGE_TLS_CERT_FILE is set")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return show(stdout, stderr, healthHelp+flags.FlagUsages())
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil:
		err = askHealth(*listen, *secure)
	}
	if err != nil {
		complain(stderr, err)
		return exitFailed
	}
	return exitOK
}

// variable returns an environment variable's value; an empty one counts as unset,
// as it does for the server.
func variable(environ []string, name, def string) string {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok && value != "" {
			def = value
		}
	}
	return def
}

// askHealth returns nil if the server at the address answers /health with 200.
func askHealth(listen string, secure bool) error {
	host, port, err := net.SplitHostPort(listen)
	switch {
	case err != nil:
		return fmt.Errorf("the address must be HOST:PORT, not %q", listen)
	case port == "0":
		return fmt.Errorf("the address must have the port that the server was given, not that of %q", listen)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	target := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/health"}
	if secure {
		target.Scheme = "https"
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	r.Host = "localhost" // which every server answers to, whatever hosts it is told to allow
	client := http.Client{
		Transport: &http.Transport{ // through no proxy
			DisableKeepAlives: true,
			// The certificate names the public host and not this address; nothing
			// secret is sent, and what is asked is whether the server answers.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(r)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer within %s", target.String(), healthTimeout)
	case err != nil:
		return fmt.Errorf("the server does not answer: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("%s: %w", target.String(), err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", target.String(), response.Status)
	}
	return nil
}
