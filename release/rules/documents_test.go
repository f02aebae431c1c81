package rules

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/taskbridge/taskbridge/release/workspace"
)

func read(t *testing.T, w *workspace.Workspace, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.Root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// target is the name of a module in the Makefile and among the workflows.
func target(m workspace.Module) string {
	if strings.HasPrefix(m.Dir, "examples/") {
		return "examples"
	}
	return path.Base(m.Dir)
}

func TestTheMakefileTestsEveryModule(t *testing.T) {
	w := load(t)
	makefile := read(t, w, "Makefile")
	listed := strings.ReplaceAll(makefile, "\\\n", " ")
	modules := regexp.MustCompile(`(?m)^MODULES := (.*)$`).FindStringSubmatch(listed)
	steps := regexp.MustCompile(`(?m)^STEPS := (.*)$`).FindStringSubmatch(listed)
	if modules == nil || steps == nil {
		t.Fatal("the Makefile has no line MODULES := or STEPS :=")
	}
	for _, m := range w.Modules {
		name := target(m)
		if m.Dir == "release" {
			name = "rehearsal"
		} else if m.InWork != contains(modules[1], m.Dir) {
			t.Errorf("%s: in go.work %v, in the Makefile's MODULES %v", m.Dir, m.InWork, !m.InWork)
		}
		if !m.InWork && m.Dir != "release" {
			continue // what only some tests need, and they build it themselves
		}
		if !contains(steps[1], "test-"+name) {
			t.Errorf("make test does not make test-%s", name)
		}
		if !strings.Contains(makefile, "$(call test_module,"+m.Dir+")") {
			t.Errorf("no target tests %s", m.Dir)
		}
	}
}

func contains(words, word string) bool {
	for field := range strings.FieldsSeq(words) {
		if field == word {
			return true
		}
	}
	return false
}

func TestEveryModuleHasAWorkflowThatRunsWhenItOrWhatItRequiresChanges(t *testing.T) {
	w := load(t)
	for _, m := range w.Modules {
		if !m.InWork {
			continue
		}
		file := ".github/workflows/" + target(m) + ".yml"
		workflow := read(t, w, file)
		for _, dir := range append(m.Siblings(), m.Path) {
			dir = strings.TrimPrefix(dir, workspace.Prefix)
			if strings.Count(workflow, "- "+dir+"/**\n") != 2 { // for pushes and pull requests
				t.Errorf("%s does not run when %s changes", file, dir)
			}
		}
		if !strings.Contains(workflow, "make test-"+target(m)+"\n") || !strings.Contains(workflow, `GOWORK: "off"`) {
			t.Errorf("%s does not run make test-%s with GOWORK off", file, target(m))
		}
	}
}

var link = regexp.MustCompile(`\]\(([^()\s]+)\)`)

func TestEveryRelativeLinkInADocumentLeadsSomewhere(t *testing.T) {
	w := load(t)
	files, err := w.Files("*.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, file := range files {
		for _, match := range link.FindAllStringSubmatch(read(t, w, file), -1) {
			name, _, _ := strings.Cut(match[1], "#")
			if name == "" || strings.Contains(name, ":") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(w.Root, path.Dir(file), filepath.FromSlash(name))); err != nil {
				t.Errorf("%s links to %s: %v", file, match[1], err)
			}
		}
	}
	if links == 0 {
		t.Error("no document has a link")
	}
}

func TestTheReadmeNamesTheCommands(t *testing.T) {
	readme := read(t, load(t), "README.md")
	for _, command := range []string{"go run ./server/cmd/taskbridge serve", "make test"} {
		if !strings.Contains(readme, command) {
			t.Errorf("README.md lacks the command %q", command)
		}
	}
}
