//go:build linux

package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestANetworkIsFreeUnlessTheHostHasARouteIntoIt(t *testing.T) {
	route := func(destination string) netlink.Route {
		parsed, err := netlink.ParseIPNet(destination)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Route{Dst: parsed}
	}
	for destination, want := range map[string]bool{
		"10.231.5.0/24": true, "10.231.0.0/16": true, "10.231.128.1/32": true, "10.224.0.0/12": true,
		"10.232.0.0/16": false, "192.0.2.0/24": false, "0.0.0.0/0": false,
	} {
		if got := routed(plan(231).all(), []netlink.Route{route(destination)}); got != want {
			t.Errorf("a route to %s: %v, want %v", destination, got, want)
		}
	}
	if routed(plan(231).all(), []netlink.Route{{}}) {
		t.Error("a default route takes every network")
	}
}

func TestAnAddressPlanKeepsPodsAndServicesApart(t *testing.T) {
	n := plan(231)
	if n.Pods.Overlaps(n.Services) || !n.Pods.Contains(n.Node) || !n.Services.Contains(n.API) {
		t.Errorf("%+v", n)
	}
	if want := netip.MustParsePrefix("10.231.0.0/16"); n.all() != want || !want.Contains(n.Services.Addr()) {
		t.Errorf("%s holds not all of %+v", n.all(), n)
	}
}

func TestAStartedProcessIsKnownToHaveEnded(t *testing.T) {
	l := newLauncher()
	defer close(l)
	p, err := l.start(exec.Command("sleep", "1000000"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.running() {
		t.Error("it is not running")
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if p.running() {
		t.Error("it runs on")
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", p.err)
	}
	if err := p.kill(); err != nil {
		t.Errorf("killing it again: %v", err)
	}
	if _, err := l.start(exec.Command(filepath.Join(t.TempDir(), "none"))); err == nil {
		t.Error("what is not there was started")
	}
}

func TestTheEndOfALogIsItsLastLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(tail(file), "\n")
	if len(lines) != 26 || lines[1] != "line 99975" || lines[25] != "line 99999" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if got := tail(file + "none"); !strings.Contains(got, "no such file") {
		t.Errorf("of no log: %q", got)
	}
}

func TestComponentsAreNotLedElsewhereByTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1")
	t.Setenv("no_proxy", "example.test")
	t.Setenv("ETCD_NAME", "other")
	t.Setenv("KUBECONFIG", "/production")
	t.Setenv("KEPT", "yes")
	got := environment()
	for _, variable := range got {
		for _, name := range []string{"HTTPS_PROXY", "no_proxy", "ETCD_NAME", "KUBECONFIG"} {
			if strings.HasPrefix(variable, name+"=") {
				t.Errorf("there is %s", variable)
			}
		}
	}
	if !slices.Contains(got, "KEPT=yes") {
		t.Error("KEPT is missing")
	}
}

func TestSharedFoldersAreRemovedOnlyIfNothingOfOthersIsInThem(t *testing.T) {
	empty, full := filepath.Join(t.TempDir(), "empty"), filepath.Join(t.TempDir(), "full")
	for _, dir := range []string{filepath.Join(empty, "a", "b"), filepath.Join(full, "a")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	theirs := filepath.Join(full, "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{empty, full, filepath.Join(empty, "none")} {
		if err := removeEmpty(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("an empty folder is left")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestALongTemporaryFolderIsRefused(t *testing.T) {
	if err := fits("/tmp/tbk8s-1234567890"); err != nil {
		t.Error(err)
	}
	if err := fits("/" + strings.Repeat("x", 90)); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("a long one: %v", err)
	}
}
