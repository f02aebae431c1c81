package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge is the interface that pods are connected to. It carries the node's address
// and the API server's, so that nothing listens on an interface that others see,
// and no packet filter needs a rule.
const bridge = "tbk8s0"

// network is the address plan of a cluster, a /16 of its own.
type network struct {
	// Pods is the range of the pods' addresses. It holds Node.
	Pods netip.Prefix
	// Node is the node's address and the pods' gateway.
	Node netip.Addr
	// Services is the range of the services' addresses. It holds API.
	Services netip.Prefix
	// API is the address of the service "kubernetes", on which the API server itself
	// listens: pods reach it by their environment, though there is no kube-proxy.
	API netip.Addr
}

// plan is the address plan 10.n.0.0/16.
func plan(n byte) network {
	return network{
		Pods:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 0}), 17),
		Node:     netip.AddrFrom4([4]byte{10, n, 0, 1}),
		Services: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 128, 0}), 20),
		API:      netip.AddrFrom4([4]byte{10, n, 128, 1}),
	}
}

// all is the whole range of the plan.
func (n network) all() netip.Prefix { return netip.PrefixFrom(n.Pods.Addr(), 16).Masked() }

// freeNetwork is the first plan that this host has no route into.
func freeNetwork() (network, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return network{}, fmt.Errorf("list the host's routes: %w", err)
	}
	for n := byte(231); n < 251; n++ {
		candidate := plan(n)
		if !routed(candidate.all(), routes) {
			return candidate, nil
		}
	}
	return network{}, errors.New("the host has routes into each of 10.231.0.0/16 to 10.250.0.0/16: none is left for pods")
}

// routed says whether a route other than a default one leads into the range.
func routed(p netip.Prefix, routes []netlink.Route) bool {
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		address, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		bits, _ := route.Dst.Mask.Size()
		if ok && bits > 8 && p.Overlaps(netip.PrefixFrom(address, bits)) {
			return true
		}
	}
	return false
}

// connect makes the bridge with its two addresses. The bridge plugin looks at the first
// one, and connects no pod if that is not the gateway's.
func (n network) connect() error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridge
	link := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("make the bridge %s: %w", bridge, err)
	}
	for _, address := range []netip.Prefix{netip.PrefixFrom(n.Node, n.Pods.Bits()), netip.PrefixFrom(n.API, 32)} {
		ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
			return fmt.Errorf("give %s the address %s: %w", bridge, ip, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", bridge, err)
	}
	return nil
}

// disconnect removes the bridge and the interfaces of pods that are on it. It is no
// error that there are none.
func disconnect() error {
	link, err := netlink.LinkByName(bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the bridge %s: %w", bridge, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, port := range links {
		if port.Attrs().MasterIndex != link.Attrs().Index {
			continue
		}
		// It may vanish by itself, with its pod's namespace.
		if err := netlink.LinkDel(port); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove the interface %s: %w", port.Attrs().Name, err)
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove the bridge %s: %w", bridge, err)
	}
	return nil
}

// freePorts are ports on the loopback interface that nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it doesn't block
		if err != nil {
			return nil, fmt.Errorf("look for a free port: %w", err)
		}
		listeners = append(listeners, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
