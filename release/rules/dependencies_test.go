package rules

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/taskbridge/taskbridge/release/workspace"
)

// dependency is a row of the table in docs/dependencies.md.
type dependency struct {
	usedBy []string
	reason string
}

// documented reads the rows of the form
//
//	| `module/path` | `folder`, `folder` | why |
func documented(t *testing.T, w *workspace.Workspace) map[string]dependency {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.Root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]dependency{}
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) != 3 {
			continue
		}
		var usedBy []string
		for name := range strings.SplitSeq(cells[1], ",") {
			usedBy = append(usedBy, strings.Trim(strings.TrimSpace(name), "`"))
		}
		slices.Sort(usedBy)
		name := strings.Trim(strings.TrimSpace(cells[0]), "`")
		if _, twice := rows[name]; twice {
			t.Errorf("docs/dependencies.md lists %s twice", name)
		}
		rows[name] = dependency{usedBy, strings.TrimSpace(cells[2])}
	}
	return rows
}

// required returns which modules of the repository require a module directly.
func required(w *workspace.Workspace) map[string][]string {
	users := map[string][]string{}
	for _, m := range w.Modules {
		for _, require := range m.File.Require {
			if path := require.Mod.Path; !require.Indirect && !strings.HasPrefix(path, workspace.Prefix) {
				users[path] = append(users[path], m.Dir)
			}
		}
	}
	for _, dirs := range users {
		slices.Sort(dirs)
	}
	return users
}

func TestEveryDirectDependencyIsListedWithItsUsersAndItsReason(t *testing.T) {
	w := load(t)
	listed, users := documented(t, w), required(w)
	for _, path := range slices.Sorted(maps.Keys(users)) {
		row, ok := listed[path]
		switch {
		case !ok:
			t.Errorf("%s, required by %v, has no row in docs/dependencies.md: what is it for, and why is it worth it?", path, users[path])
		case !slices.Equal(row.usedBy, users[path]):
			t.Errorf("docs/dependencies.md says that %s is used by %v; go.mod files say %v", path, row.usedBy, users[path])
		case len(row.reason) < 20:
			t.Errorf("docs/dependencies.md gives no reason for %s", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(listed)) {
		if users[path] == nil {
			t.Errorf("docs/dependencies.md lists %s, which no go.mod requires directly", path)
		}
	}
}

func TestSiblingsAreTiedByReplaceLinesAndNothingElseIsReplaced(t *testing.T) {
	w := load(t)
	for _, m := range w.Modules {
		replaced := map[string]bool{}
		for _, replace := range m.File.Replace {
			// Kubernetes requires its own parts at v0.0.0, which nobody but it has.
			if m.Dir == "adapters/k8sjob/testcluster" && replace.New.Path == replace.Old.Path {
				continue
			}
			replaced[replace.Old.Path] = true
			want, err := filepath.Rel(m.Dir, strings.TrimPrefix(replace.Old.Path, workspace.Prefix))
			if err != nil || !strings.HasPrefix(replace.Old.Path, workspace.Prefix) || filepath.ToSlash(want) != replace.New.Path {
				t.Errorf("%s/go.mod replaces %s by %s", m.Dir, replace.Old.Path, replace.New.Path)
			}
		}
		for _, sibling := range m.Siblings() {
			if !replaced[sibling] {
				t.Errorf("%s/go.mod requires %s and does not replace it", m.Dir, sibling)
			}
		}
	}
}
