package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// hostPolicy says by which names the server may be addressed. A server without
// access control that listens on loopback can still be reached by any web page
// that its user opens: directly, by a cross-origin POST, or through a name of
// the page's own that resolves to 127.0.0.1 (DNS rebinding). So both the Host
// that a request names and the Origin that a browser puts on it must be ours.
type hostPolicy struct {
	any   bool
	names map[string]bool
}

func newHostPolicy(allowed []string) hostPolicy {
	p := hostPolicy{names: make(map[string]bool, len(allowed))}
	for _, name := range allowed {
		if name == "*" {
			p.any = true
		}
		p.names[canonicalHost(name)] = true
	}
	return p
}

func (p hostPolicy) allows(host string) bool {
	host = canonicalHost(host)
	if p.any || p.names[host] || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// canonicalHost cuts off a port, brackets and the root's dot.
func canonicalHost(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// guard refuses what a foreign web page may have sent.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only HTTP/1.0 may leave out the host; no browser does.
		if r.Host != "" && !a.hosts.allows(r.Host) {
			a.fail(&call{w: w, r: r}, invalidRequest("host not allowed"))
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && r.Method != http.MethodGet && r.Method != http.MethodHead {
			if u, err := url.Parse(origin); err != nil || u.Host == "" || !a.hosts.allows(u.Host) {
				a.fail(&call{w: w, r: r}, invalidRequest("origin not allowed"))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
