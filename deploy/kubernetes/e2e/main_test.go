package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// What the tests get from the environment; KUBECONFIG is never looked at: it may be
// of somebody's production.
const (
	envKubeconfig = "TASKBRIDGE_TEST_KUBECONFIG"
	// envControl is a socket of the test cluster, which imports images over it.
	envControl = "TASKBRIDGE_TEST_CLUSTER_CONTROL"
	// envAddress is an address of this machine that pods reach.
	envAddress = "TASKBRIDGE_TEST_NODE_ADDRESS"
	// envProgram is the test cluster's program, which makes images too.
	envProgram = "TASKBRIDGE_TESTCLUSTER"
)

// clusterTests are those that need the cluster of adapters/k8sjob/testcluster.
const clusterTests = "^TestCluster"

// built is where programs are built, once each.
var built struct {
	dir string
	sync.Mutex
	programs map[string]string
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := leaveOut(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	dir, err := os.MkdirTemp("", "taskbridge-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	built.dir, built.programs = dir, map[string]string{}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

// leaveOut keeps tests from being run that this machine can't run, and says so. It is
// the one place where that is decided.
func leaveOut() error {
	missing := ""
	for _, name := range []string{envKubeconfig, envControl, envAddress, envProgram} {
		if os.Getenv(name) == "" {
			missing = name
		}
	}
	if missing == "" {
		return nil
	}
	const rule = "!!! ------------------------------------------------------------------------\n"
	fmt.Fprintf(os.Stderr, rule+"!!! NOT RUN: the tests that match %s\n!!! %s is not set: \"make test-deploy\" starts a cluster where it can\n"+rule, clusterTests, missing)
	return flag.Set("test.skip", clusterTests)
}

// root is the repository's.
func root(t *testing.T, elements ...string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", ".."))
	must(t, err)
	return filepath.Join(append([]string{dir}, elements...)...)
}

// build builds a program of the repository, static and as its users get it.
func build(t *testing.T, module, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	key := module + "/" + pkg
	if path, ok := built.programs[key]; ok {
		return path
	}
	path := filepath.Join(built.dir, filepath.Base(filepath.Join(module, pkg)))
	command := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./"+pkg)
	command.Dir = root(t, filepath.FromSlash(module))
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", key, err, output)
	}
	built.programs[key] = path
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
