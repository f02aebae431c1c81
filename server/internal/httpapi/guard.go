package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// hostPolicy says by which names the server may be addressed. A server without
// access control that listens on loopback can still be reached by any web page
// that its user opens: directly, by a cross-origin POST, or through a name of
// the page's own that resolves to 127.0.0.1 (DNS rebinding). So both the Host
// that a request names and the Origin that a browser puts on it must be ours.
//
// With access control a page of elsewhere has no credentials, unless a proxy
// adds them to what the browser sends: so the Origin must be the request's own
// Host all the same, or one that is allowed by name. Which Host that is does not
// matter then, as long as nobody has said which it may be.
type hostPolicy struct {
	any     bool
	names   map[string]bool
	guarded bool
	origins []string
}

func newHostPolicy(opts Options) hostPolicy {
	p := hostPolicy{
		names: make(map[string]bool, len(opts.AllowedHosts)), guarded: opts.AccessControl, origins: opts.AllowedOrigins,
		any: opts.AccessControl && len(opts.AllowedHosts) == 0,
	}
	for _, name := range opts.AllowedHosts {
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

// allowsOrigin reports whether the request comes from no page, or from one that
// may make it.
func (p hostPolicy) allowsOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(p.origins, origin) || slices.Contains(p.origins, "*") {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if p.guarded {
		return strings.EqualFold(u.Host, r.Host)
	}
	return p.allows(u.Host)
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
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions && !a.hosts.allowsOrigin(r) {
			a.fail(&call{w: w, r: r}, invalidRequest("origin not allowed"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
