package k8sjob

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Tests on a real cluster are called TestCluster…, and those that kill its components
// TestClusterFault…; so TestMain knows which can't be run.
const (
	clusterTests = "^(TestCluster|BenchmarkCluster)"
	faultTests   = "^TestClusterFault"
)

func TestMain(m *testing.M) {
	if os.Getenv(envStandby) != "" {
		if err := runStandby(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := leaveOut(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	status := m.Run()
	removeImage()
	if status == 0 {
		if err := findLeaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// leaveOut keeps tests from being run that this machine can't run, and says so. It is
// the one place where that is decided.
func leaveOut() error {
	cluster, control := os.Getenv(envKubeconfig) != "", os.Getenv(envControl) != ""
	switch {
	case cluster && control:
		return nil
	case cluster && os.Getenv(envImage) == "":
		return fmt.Errorf("%s is set without %s: put the image that adapters/k8sjob/internal/testwork makes where the cluster finds it, and name it in %s",
			envKubeconfig, envControl, envImage)
	}
	pattern, why := clusterTests, fmt.Sprintf("%s is not set: \"make test-k8sjob\" starts a cluster where it can", envKubeconfig)
	if cluster {
		pattern, why = faultTests, fmt.Sprintf("%s is not set, so that nobody may kill this cluster's components", envControl)
	}
	const rule = "!!! ------------------------------------------------------------------------\n"
	fmt.Fprintf(os.Stderr, rule+"!!! NOT RUN: the tests that match %s\n!!! %s\n"+rule, pattern, why)
	if skipped := flag.Lookup("test.skip").Value.String(); skipped != "" {
		pattern = pattern + "|" + skipped
	}
	return flag.Set("test.skip", pattern)
}

// findLeaks waits for goroutines to end: connections take a moment.
func findLeaks() error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		closeRemaining()
		if err := goleak.Find(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
