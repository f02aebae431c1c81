// Package cluster runs a Kubernetes cluster of one node on this host, from programs
// that are there: an own containerd and this binary's own components. All that it
// makes is below one folder, or noted in a state file, and removed at the end.
package cluster

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// NodeName is the name of the one node.
const NodeName = "test-node"

// layout is where a cluster's things are.
type layout struct {
	dir string // what is removed at the end
	net network

	adminToken string

	etcdPort, etcdPeerPort, controllerManagerPort, schedulerPort, kubeletHealthPort int
}

// newLayout chooses addresses and ports for a cluster below dir.
func newLayout(dir string) (*layout, error) {
	net, err := freeNetwork()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	return &layout{
		dir: dir, net: net,
		etcdPort: ports[0], etcdPeerPort: ports[1],
		controllerManagerPort: ports[2], schedulerPort: ports[3], kubeletHealthPort: ports[4],
	}, nil
}

// path is that of something of the cluster.
func (l *layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

// cgroup is the control group, from the root, that all pods are below.
func (l *layout) cgroup() string { return "/" + filepath.Base(l.dir) }

func (l *layout) apiserver() string        { return "https://" + l.net.API.String() }
func (l *layout) kubeconfig() string       { return l.path("admin.kubeconfig") }
func (l *layout) control() string          { return l.path("control.sock") }
func (l *layout) containerdSocket() string { return l.path("containerd.sock") }
func (l *layout) log(name string) string   { return l.path("logs", name+".log") }

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// longest is the most that a unix socket's path may have, and socketRoom what the
// kubelet and containerd put behind the folder.
const (
	longest    = 107
	socketRoom = len("/kubelet/device-plugins/kubelet_internal_checkpoint")
)

// fits is an error where sockets below dir would have too long names.
func fits(dir string) error {
	if len(dir)+socketRoom > longest {
		return fmt.Errorf("the folder %s is too long a name for sockets below it: set TMPDIR to a shorter one", dir)
	}
	return nil
}
