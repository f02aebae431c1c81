// Package rules holds the tests of what must be true of the repository as a
// whole: who may import whom, which dependencies there are and why, and that
// build, workflows and documents know every module.
package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/taskbridge/taskbridge/release/workspace"
)

func load(t *testing.T) *workspace.Workspace {
	t.Helper()
	w, err := workspace.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// dependencies lists the packages outside the standard library that the
// module's packages import, directly or not; with tests, their tests too.
func dependencies(t *testing.T, w *workspace.Workspace, m workspace.Module, tests bool) []string {
	t.Helper()
	args := []string{"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}"}
	if tests {
		args = append(args, "-test")
	}
	command := exec.Command("go", append(args, "./...")...)
	command.Dir = filepath.Join(w.Root, filepath.FromSlash(m.Dir))
	command.Env = append(os.Environ(), "GOWORK=off")
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list in %s: %v\n%s", m.Dir, err, stderr.String())
	}
	var packages []string
	for line := range strings.Lines(string(out)) {
		// "a/b [c.test]" is a/b as the test binary of c has it.
		path, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path != "" {
			packages = append(packages, path)
		}
	}
	return packages
}

// below reports whether the package belongs to one of the repository's folders.
func below(pkg string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		path := workspace.Prefix + dir
		return pkg == path || pkg == path+".test" || strings.HasPrefix(pkg, path+"/") || strings.HasPrefix(pkg, path+"_test")
	})
}

func TestCoreRequiresNothingAndImportsTheStandardLibraryAlone(t *testing.T) {
	w := load(t)
	for _, m := range w.Modules {
		if m.Dir != "core" {
			continue
		}
		if len(m.File.Require) > 0 || len(m.File.Replace) > 0 {
			t.Error("core/go.mod has a require or a replace")
		}
		packages := dependencies(t, w, m, true)
		if len(packages) == 0 {
			t.Fatal("go list names no package of core")
		}
		for _, pkg := range packages {
			if !below(pkg, "core") {
				t.Errorf("core imports %s", pkg)
			}
		}
		return
	}
	t.Fatal("there is no module core")
}

// mayImport says of which of the repository's folders a module may import
// packages, itself apart; tests of a module may import those of both lists.
var mayImport = []struct {
	module      string // a folder, or one that ends in "/" for all below it
	code, tests []string
}{
	{"core", nil, nil},
	{"fakes", []string{"core"}, nil},
	{"adapters/", []string{"core"}, []string{"fakes"}},
	{"server", []string{"core", "fakes", "adapters"}, nil},
	{"examples/", []string{"core", "fakes", "adapters"}, nil},
	{"deploy/", nil, []string{"core"}},
	{"release", nil, nil},
}

func TestModulesImportOnlyTheModulesBelowThem(t *testing.T) {
	w := load(t)
	for _, m := range w.Modules {
		t.Run(m.Dir, func(t *testing.T) {
			for _, rule := range mayImport {
				if rule.module != m.Dir && (!strings.HasSuffix(rule.module, "/") || !strings.HasPrefix(m.Dir, rule.module)) {
					continue
				}
				checkImports(t, dependencies(t, w, m, false), append([]string{m.Dir}, rule.code...))
				checkImports(t, dependencies(t, w, m, true), slices.Concat([]string{m.Dir}, rule.code, rule.tests))
				return
			}
			t.Errorf("there is no rule for %s", m.Dir)
		})
	}
}

func checkImports(t *testing.T, packages, allowed []string) {
	t.Helper()
	for _, pkg := range packages {
		if strings.HasPrefix(pkg, workspace.Prefix) && !below(pkg, allowed...) {
			t.Errorf("imports %s, allowed are %v", strings.TrimPrefix(pkg, workspace.Prefix), allowed)
		}
	}
}
