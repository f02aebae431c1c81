package config

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const whyLoopback = "without access control whoever reached it could create, read and cancel tasks; " +
	"set auth.modes to apikey, jwt or proxy, or listen on 127.0.0.1, [::1] or localhost"

// checkListen refuses, unless there is access control, every address that others
// than this machine can reach.
func checkListen(address string, guarded bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("must be HOST:PORT, not %q", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("must have a port from 0 to 65535, not %q", port)
	}
	switch {
	case guarded:
		return nil
	case host == "":
		return fmt.Errorf("must be a loopback address, but %q means every address of the machine: %s", address, whyLoopback)
	case strings.EqualFold(host, "localhost"):
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !ip.Unmap().IsLoopback() {
			return fmt.Errorf("must be a loopback address, which %s is not: %s", host, whyLoopback)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("names a host that cannot be resolved: %w", err)
	}
	for _, ip := range addresses {
		if !ip.Unmap().IsLoopback() {
			return fmt.Errorf("must be a loopback address, but %s is %s: %s", host, ip, whyLoopback)
		}
	}
	return nil
}

// CheckBound is the same rule for an address that is listened on.
func (c *Config) CheckBound(address net.Addr) error {
	if c.Auth.On() {
		return nil
	}
	return c.CheckLoopback(address)
}

// CheckLoopback refuses an address that others than this machine can reach.
func (c *Config) CheckLoopback(address net.Addr) error {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return fmt.Errorf("%s is no loopback address: %s", address, whyLoopback)
	}
	return nil
}
