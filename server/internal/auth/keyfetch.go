package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// checkKeyURL says what is wrong with the address of a key set. Whoever can
// change the answer on its way can sign tokens, so only loopback goes without
// TLS. The address is logged, so no password may be in it.
func checkKeyURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("is no URL")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must be an https URL")
	case u.User != nil:
		return errors.New("must not have a user or password in it")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return errors.New("must be an https URL, unless its host is loopback")
	}
	return nil
}

func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// newKeyClient makes a client that follows no redirect, since where the keys are
// is for the operator to say, and keeps no connection, since it would be idle.
func newKeyClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var errFetchTimeout = errors.New("it took too long")

// fetch gets the key set, within the timeout.
func (k *remoteKeys) fetch(ctx context.Context) (keySet, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := k.opts.clock.NewTimer(k.opts.timeout)
	timed := make(chan struct{})
	go func() {
		defer close(timed)
		select {
		case <-timer.C():
			cancel(errFetchTimeout)
		case <-ctx.Done():
		}
	}()
	defer func() {
		timer.Stop()
		cancel(nil)
		<-timed
	}()
	set, err := k.get(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errFetchTimeout) {
		return set, errFetchTimeout
	}
	return set, err
}

func (k *remoteKeys) get(ctx context.Context) (keySet, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.opts.url, nil)
	if err != nil {
		return keySet{}, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := k.client.Do(request)
	if err != nil {
		return keySet{}, withoutURL(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read from
	if response.StatusCode != http.StatusOK {
		return keySet{}, fmt.Errorf("the answer has status %d", response.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxKeySetBytes+1))
	switch {
	case err != nil:
		return keySet{}, fmt.Errorf("the answer was cut off: %w", err)
	case len(raw) > maxKeySetBytes:
		return keySet{}, fmt.Errorf("the answer has more than %d bytes", maxKeySetBytes)
	}
	return decodeKeySet(raw)
}

// withoutURL takes the address, which the log line has already, off the error.
func withoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// loggedURL leaves out the query, in which somebody may have put a secret.
func loggedURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
