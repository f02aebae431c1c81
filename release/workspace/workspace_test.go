package workspace

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository makes a git repository of modules, each given by its folder and
// what it requires.
func repository(t *testing.T, work string, modules map[string][]string) string {
	t.Helper()
	root := t.TempDir()
	command := exec.Command("git", "init", "--quiet", root)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	files := map[string]string{"go.work": work}
	for dir, requires := range modules {
		var mod strings.Builder
		mod.WriteString("module " + Prefix + dir + "\n")
		for _, path := range requires {
			mod.WriteString("require " + Prefix + path + " v0.0.0\n")
		}
		files[dir+"/go.mod"] = mod.String()
	}
	for name, content := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func dirs(modules []Module) []string {
	var names []string
	for _, m := range modules {
		names = append(names, m.Dir)
	}
	return names
}

func TestModulesFollowWhatTheyRequire(t *testing.T) {
	root := repository(t, "go 1.26.0\n\nuse (\n\t./core\n\t./adapters/a\n\t./z\n\t./examples/e\n)\n", map[string][]string{
		"adapters/a": {"core", "z"},
		"core":       nil,
		"examples/e": {"adapters/a"},
		"heavy":      {"core"},
		"z":          {"core"},
	})
	w, err := Load(filepath.Join(root, "core"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := dirs(w.Modules), []string{"core", "heavy", "z", "adapters/a", "examples/e"}; !slices.Equal(got, want) {
		t.Errorf("modules are %q, want %q", got, want)
	}
	if got, want := dirs(w.Published()), []string{"core", "z", "adapters/a"}; !slices.Equal(got, want) {
		t.Errorf("published are %q, want %q", got, want)
	}
}

func TestAnOddLayoutIsAnError(t *testing.T) {
	const work = "go 1.26.0\n\nuse ./core\n"
	for _, c := range []struct {
		name, work string
		modules    map[string][]string
	}{
		{"modules that require each other", work, map[string][]string{"core": {"fakes"}, "fakes": {"core"}}},
		{"a module that is not there", work, map[string][]string{"core": {"missing"}}},
		{"a module whose path is not that of its folder", work, map[string][]string{"core": nil, "x/../y": nil}},
		{"a go.work that is none", "nonsense", map[string][]string{"core": nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if w, err := Load(repository(t, c.work, c.modules)); err == nil {
				t.Errorf("loaded %q", dirs(w.Modules))
			}
		})
	}
}
