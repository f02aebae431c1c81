// Package component holds the programs that a Kubernetes cluster of one node is made
// of. Each expects a process of its own: gates, metrics and signal handlers are
// global to one.
package component

import (
	"context"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // registers the metrics of clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // registers the version as a metric
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Main runs the component of that name until it ends and returns its exit status.
// It is false where there is none of that name. args are its flags.
func Main(name string, args []string) (int, bool) {
	var command *cobra.Command
	switch name {
	case "etcd":
		etcdmain.Main(append([]string{name}, args...))
		return 0, true
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand()
	case "scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	default:
		return 0, false
	}
	command.SetArgs(args)
	return cli.Run(command), true
}
