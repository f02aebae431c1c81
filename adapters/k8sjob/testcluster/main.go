// Command testcluster runs a real Kubernetes cluster of one node for tests, and is
// that cluster's components. It needs Linux, root, and containerd, runc and the CNI
// plugins of a distribution. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/cluster"
	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/component"
	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/image"
)

const usage = `testcluster: a Kubernetes cluster of one node, for tests

  testcluster run [flags] -- COMMAND [ARGUMENTS]   start a cluster, run a command, end the cluster
  testcluster up [flags]                           start a cluster and keep it until a signal
  testcluster image [flags]                        write an image archive round a static binary
  testcluster COMPONENT [flags]                    be one of the cluster's components:
    etcd, kube-apiserver, kube-controller-manager, scheduler, kubelet

-h after any of them tells its flags.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	var code int
	var err error
	switch name {
	case "run", "up":
		code, err = withCluster(name, args)
	case "image":
		err = makeImage(args)
	default:
		var ok bool
		if code, ok = component.Main(name, args); !ok {
			fmt.Fprint(os.Stderr, usage)
			code = 2
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// withCluster starts a cluster, runs the command or waits, and ends the cluster.
func withCluster(name string, args []string) (code int, err error) {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	logs := flags.String("logs", "", "folder that the components' logs are copied into at the end")
	if err := flags.Parse(args); err != nil {
		return 2, err
	}
	if (name == "run") != (flags.NArg() > 0) {
		fmt.Fprint(os.Stderr, usage)
		return 2, nil
	}
	if os.Geteuid() != 0 {
		return 1, errors.New("only root can start a cluster: containers, control groups and interfaces are made")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c, err := cluster.Start(ctx, os.Stderr)
	if err != nil {
		return 1, err
	}
	if name == "run" {
		code, err = c.Run(ctx, flags.Arg(0), flags.Args()[1:]...)
	} else {
		c.Describe(os.Stdout)
		<-ctx.Done()
	}
	if *logs != "" {
		err = errors.Join(err, os.CopyFS(filepath.Join(*logs, filepath.Base(filepath.Dir(c.Logs()))), os.DirFS(c.Logs())))
	}
	return code, errors.Join(err, c.Stop())
}

// makeImage writes an image archive.
func makeImage(args []string) (err error) {
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	name := flags.String("name", "", "the image's name, as in example.test/batch:1")
	binary := flags.String("binary", "", "a static program, put into the image's root")
	entrypoint := flags.String("entrypoint", "", "the command in the image; without it the binary")
	user := flags.String("user", "", "number of the user that it runs as: 65532 is nonroot; without it root")
	out := flags.String("out", "-", "the archive; - is standard output")
	im := image.Image{}
	flags.Func("file", "HOST:IN_IMAGE, another file; repeatable", func(pair string) error {
		host, inImage, err := split(pair)
		im.Files = append(im.Files, image.File{Path: inImage, Host: host})
		return err
	})
	flags.Func("link", "TARGET:IN_IMAGE, a symbolic link; repeatable", func(pair string) error {
		target, inImage, err := split(pair)
		im.Files = append(im.Files, image.File{Path: inImage, Link: target})
		return err
	})
	flags.Func("env", "NAME=VALUE, a variable; repeatable", func(variable string) error {
		im.Env = append(im.Env, variable)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	im.Name, im.User = *name, *user
	if *binary != "" {
		inImage := "/" + filepath.Base(*binary)
		im.Files = append(im.Files, image.File{Path: inImage, Host: *binary})
		im.Entrypoint = []string{inImage}
	}
	if *entrypoint != "" {
		im.Entrypoint = append([]string{*entrypoint}, flags.Args()...)
	} else if flags.NArg() > 0 {
		return fmt.Errorf("arguments %q without an entrypoint", flags.Args())
	}
	if *out == "-" {
		return im.Write(os.Stdout)
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	return errors.Join(im.Write(f), f.Close())
}

func split(pair string) (from, inImage string, err error) {
	for i := len(pair) - 1; i > 0; i-- {
		if pair[i] == ':' {
			return pair[:i], pair[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("%q is not FROM:IN_IMAGE", pair)
}
