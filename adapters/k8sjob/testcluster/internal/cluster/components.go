package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// component is one program of the cluster.
type component struct {
	name string
	// command is how it is started, each time anew.
	command func() *exec.Cmd
	// ready is nil once it can be used.
	ready func(context.Context) error
}

// controllers are those that run: what Jobs and what belongs to them need.
const controllers = "job-controller,garbage-collector-controller,ttl-after-finished-controller," +
	"cronjob-controller,deployment-controller,replicaset-controller,endpointslice-controller," +
	"serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller," +
	"namespace-controller,resourcequota-controller,disruption-controller,clusterrole-aggregation-controller," +
	"node-lifecycle-controller,taint-eviction-controller,pod-garbage-collector-controller"

// components are all, in the order in which they are started.
func (l *layout) components(self string, cri *criClient) []component {
	own := func(name string, flags ...string) func() *exec.Cmd {
		return func() *exec.Cmd { return exec.Command(self, append([]string{name}, flags...)...) }
	}
	pki := func(name string) string { return l.path("pki", name) }
	client := "http://" + loopback(l.etcdPort)
	peer := "http://" + loopback(l.etcdPeerPort)
	return []component{
		{
			name: "containerd",
			command: func() *exec.Cmd {
				return exec.Command("containerd", "--config", l.path("containerd.toml"))
			},
			ready: cri.ready,
		},
		{
			name: "etcd",
			command: own("etcd", "--name=testcluster", "--data-dir="+l.path("etcd"), "--log-level=warn",
				"--unsafe-no-fsync", // SIGKILL loses nothing of what the kernel has
				"--listen-client-urls="+client, "--advertise-client-urls="+client,
				"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=testcluster="+peer),
			ready: answers(client + "/readyz"),
		},
		{
			name: "kube-apiserver",
			command: own("kube-apiserver", "--bind-address="+l.net.API.String(), "--secure-port=443",
				"--advertise-address="+l.net.Node.String(), "--endpoint-reconciler-type=none",
				"--service-cluster-ip-range="+l.net.Services.String(), "--etcd-servers="+client,
				"--cert-dir="+l.path("pki"), "--tls-cert-file="+pki("apiserver.crt"), "--tls-private-key-file="+pki("apiserver.key"),
				"--token-auth-file="+pki("tokens.csv"), "--authorization-mode=Node,RBAC",
				"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
				"--service-account-key-file="+pki("service-accounts.pub"),
				"--service-account-signing-key-file="+pki("service-accounts.key"),
				"--client-ca-file="+pki("ca.crt"),
				"--kubelet-certificate-authority="+pki("ca.crt"),
				"--kubelet-client-certificate="+pki("apiserver-to-kubelet.crt"),
				"--kubelet-client-key="+pki("apiserver-to-kubelet.key"),
				"--kubelet-preferred-address-types=InternalIP,Hostname",
				"--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
				"--default-not-ready-toleration-seconds=3", "--default-unreachable-toleration-seconds=3"),
			ready: answers(l.apiserver() + "/readyz"),
		},
		{
			name: "kube-controller-manager",
			command: own("kube-controller-manager", "--kubeconfig="+l.path("controller-manager.kubeconfig"),
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", l.controllerManagerPort), "--cert-dir="+l.path("pki", "controller-manager"),
				"--controllers="+controllers, "--leader-elect=false", "--use-service-account-credentials=true",
				"--service-account-private-key-file="+pki("service-accounts.key"), "--root-ca-file="+pki("ca.crt"),
				"--node-monitor-period=1s", "--node-monitor-grace-period=12s",
				"--kube-api-qps=200", "--kube-api-burst=400"),
			ready: answers("https://" + loopback(l.controllerManagerPort) + "/healthz"),
		},
		{
			name: "scheduler",
			command: own("scheduler", "--kubeconfig="+l.path("scheduler.kubeconfig"),
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", l.schedulerPort), "--cert-dir="+l.path("pki", "scheduler"),
				"--leader-elect=false"),
			ready: answers("https://" + loopback(l.schedulerPort) + "/healthz"),
		},
		{
			name: "kubelet",
			command: own("kubelet", "--config="+l.path("kubelet.yaml"), "--kubeconfig="+l.path("kubelet.kubeconfig"),
				"--root-dir="+l.path("kubelet"), "--cert-dir="+l.path("kubelet", "pki"),
				"--hostname-override="+NodeName, "--node-ip="+l.net.Node.String()),
			ready: answers("http://" + loopback(l.kubeletHealthPort) + "/healthz"),
		},
	}
}

// prober asks components whether they are well. It looks at no certificate: some
// make their own, and nothing is sent that others must not see.
var prober = &http.Client{
	Timeout: 5 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	},
}

// answers is a probe that wants the status 200 from an address.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := prober.Do(request)
		if err != nil {
			return err
		}
		if err := response.Body.Close(); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

// until asks again and again until there is no error, the context ends or the
// process does.
func until(ctx context.Context, p *process, ask func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return errors.New("it ended: " + strings.TrimSpace(fmt.Sprint(p.err)))
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer: %w", context.Cause(ctx), err)
		}
	}
}
