package cluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/image"
)

// user is one that knows a token.
type user struct {
	file   string // the kubeconfig
	name   string
	groups string
}

// admin is the one that tests act as.
var admin = user{"admin", "taskbridge-test-admin", "system:masters"}

var users = []user{
	admin,
	{"controller-manager", "system:kube-controller-manager", ""},
	{"scheduler", "system:kube-scheduler", ""},
	{"kubelet", "system:node:" + NodeName, "system:nodes"},
}

// configure writes all files that the components read.
func (l *layout) configure() error {
	for _, dir := range []string{"logs", "pki", "cni", "kubelet", "kubelet/volumeplugins", "kubelet/pki", "podlogs"} {
		if err := os.MkdirAll(l.path(dir), 0o700); err != nil {
			return err
		}
	}
	for _, write := range []func() error{l.certificates, l.tokens, l.containerd, l.cni, l.kubelet, l.pause} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) certificates() error {
	ca, err := newAuthority(l.path("pki"))
	if err != nil {
		return err
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return errors.Join(
		ca.issue("apiserver", "kube-apiserver", "", []netip.Addr{l.net.API, l.net.Node, local},
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
		ca.issue("kubelet", NodeName, "", []netip.Addr{l.net.Node}, NodeName),
		ca.issue("apiserver-to-kubelet", "kube-apiserver-kubelet-client", "system:masters", nil),
		signingKey(l.path("pki"), "service-accounts"),
	)
}

// tokens writes the file that the API server knows users by, and their kubeconfigs.
func (l *layout) tokens() error {
	authority, err := os.ReadFile(l.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	var table strings.Builder
	for _, u := range users {
		token := rand.Text()
		if u == admin {
			l.adminToken = token
		}
		fmt.Fprintf(&table, "%s,%s,%s,%q\n", token, u.name, u.name, u.groups)
		if err := writeJSON(l.path(u.file+".kubeconfig"), map[string]any{
			"apiVersion": "v1",
			"kind":       "Config",
			"clusters": []any{map[string]any{"name": "testcluster", "cluster": map[string]any{
				"server": l.apiserver(), "certificate-authority-data": authority,
			}}},
			"users":           []any{map[string]any{"name": u.name, "user": map[string]any{"token": token}}},
			"contexts":        []any{map[string]any{"name": "testcluster", "context": map[string]any{"cluster": "testcluster", "user": u.name}}},
			"current-context": "testcluster",
		}); err != nil {
			return err
		}
	}
	return os.WriteFile(l.path("pki", "tokens.csv"), []byte(table.String()), 0o600)
}

// containerd writes the configuration of a containerd that shares nothing with the
// host's but the folder of the shims' sockets, which is not to be set.
func (l *layout) containerd() error {
	plugins, err := cniPlugins()
	if err != nil {
		return err
	}
	return os.WriteFile(l.path("containerd.toml"), fmt.Appendf(nil, `version = 2
root = %q
state = %q
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.nri.v1.nri"]

[grpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true # root in a container may lack CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = %q
`, l.path("containerd"), l.path("state"), l.containerdSocket(), l.path("opt"), image.PauseName,
		plugins, l.path("cni"), snapshotter(l.dir), l.path("runc")), 0o600)
}

// snapshotter is how layers are put together: overlays don't stack, as where this
// runs in a container itself.
func snapshotter(dir string) string {
	const overlayfs = 0x794c7630
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err == nil && stat.Type == overlayfs {
		return "native"
	}
	return "overlayfs"
}

// cniPlugins is the folder that distributions put the network plugins into.
func cniPlugins() (string, error) {
	folders := []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "bridge")); err == nil {
			return folder, nil
		}
	}
	return "", fmt.Errorf("no CNI plugin \"bridge\" in any of %q (Debian: apt-get install containernetworking-plugins)", folders)
}

// cniNetwork is the network's name, by which the plugins keep notes of it.
const cniNetwork = "taskbridge-testcluster"

func (l *layout) cni() error {
	return writeJSON(l.path("cni", "10-testcluster.conflist"), map[string]any{
		"cniVersion": "0.4.0",
		"name":       cniNetwork,
		"plugins": []any{map[string]any{
			"type": "bridge", "bridge": bridge, "isDefaultGateway": true, "hairpinMode": true,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": l.path("cni-addresses"),
				"ranges": []any{[]any{map[string]any{"subnet": l.net.Pods, "gateway": l.net.Node}}},
			},
		}},
	})
}

func (l *layout) kubelet() error {
	// Names that a pod looks up fail at once: nobody answers on that address.
	if err := os.WriteFile(l.path("resolv.conf"), fmt.Appendf(nil, "nameserver %s\n", l.net.Node), 0o600); err != nil {
		return err
	}
	return writeJSON(l.path("kubelet.yaml"), map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  l.net.Node,
		"port":                     10250,
		"readOnlyPort":             0,
		"healthzBindAddress":       "127.0.0.1",
		"healthzPort":              l.kubeletHealthPort,
		"tlsCertFile":              l.path("pki", "kubelet.crt"),
		"tlsPrivateKeyFile":        l.path("pki", "kubelet.key"),
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": false}, "x509": map[string]any{"clientCAFile": l.path("pki", "ca.crt")}},
		"authorization":            map[string]any{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + l.containerdSocket(),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               l.cgroup(),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"makeIPTablesUtilChains":   false,
		"oomScoreAdj":              0,
		"clusterDNS":               []any{l.net.Node},
		"clusterDomain":            "cluster.local",
		"resolvConf":               l.path("resolv.conf"),
		"podLogsDir":               l.path("podlogs"),
		"volumePluginDir":          l.path("kubelet", "volumeplugins"),
		"maxPods":                  500,
		// A killed kubelet is noticed soon.
		"nodeLeaseDurationSeconds":  8,
		"nodeStatusUpdateFrequency": "2s",
		"nodeStatusReportFrequency": "1m",
		// A full disk of the host's is no reason to evict pods, nor to drop images
		// that can't be pulled again.
		"evictionHard":                map[string]any{"memory.available": "10Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"kubeAPIQPS":                  100,
		"kubeAPIBurst":                200,
		"registryPullQPS":             0,
		"eventRecordQPS":              0,
	})
}

// pause writes the archive of the image that containerd runs in each pod.
func (l *layout) pause() (err error) {
	pause, err := image.Pause()
	if err != nil {
		return err
	}
	f, err := os.Create(l.path("pause.tar"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return pause.Write(f)
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
