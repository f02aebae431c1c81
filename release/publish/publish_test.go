package publish

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/release/workspace"
)

const version = "v1.2.3-rehearsal"

// toy is a repository of two modules and an example.
var toy = map[string]string{
	"LICENSE":                  "the licence\n",
	"go.work":                  "go 1.26.0\n\nuse (\n\t./core\n\t./adapters/toy\n\t./examples/toy\n)\n",
	"core/go.mod":              "module " + workspace.Prefix + "core\n\ngo 1.26.0\n",
	"core/core.go":             "package core\n",
	"adapters/toy/go.mod":      "module " + workspace.Prefix + "adapters/toy\n\ngo 1.26.0\n\nrequire " + workspace.Prefix + "core v0.0.0\n\nreplace " + workspace.Prefix + "core => ../../core\n",
	"adapters/toy/toy.go":      "package toy\n\nimport _ \"" + workspace.Prefix + "core\"\n",
	"adapters/toy/toy.sh":      "#!/bin/sh\n",
	"adapters/toy/.gitignore":  "built\n",
	"adapters/toy/built":       "nobody's business\n",
	"examples/toy/go.mod":      "module " + workspace.Prefix + "examples/toy\n\ngo 1.26.0\n",
	"adapters/toy/deep/go.mod": "module " + workspace.Prefix + "adapters/toy/deep\n\ngo 1.26.0\n",
}

// repository writes the files into a new git repository and commits them.
func repository(t *testing.T, files map[string]string) *workspace.Workspace {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(root, filepath.FromSlash(name)), content)
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"config", "user.name", "Nobody"},
		{"config", "user.email", "nobody@example.com"},
		{"config", "commit.gpgsign", "false"},
		{"config", "tag.gpgsign", "false"},
		{"add", "--all"},
		{"commit", "--quiet", "-m", "All of it"},
	} {
		command := exec.Command("git", args...)
		command.Dir = root
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return load(t, root)
}

func load(t *testing.T, root string) *workspace.Workspace {
	t.Helper()
	w, err := workspace.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, w *workspace.Workspace) (release *Release, proxy string) {
	t.Helper()
	proxy = t.TempDir()
	release, err := Publish(w, version, t.TempDir(), proxy, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return release, proxy
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAReleasedModuleRequiresItsSiblingsAtTheVersionAndReplacesNothing(t *testing.T) {
	release, proxy := publish(t, repository(t, toy))

	want := "module " + workspace.Prefix + "adapters/toy\n\ngo 1.26.0\n\nrequire " + workspace.Prefix + "core " + version + "\n"
	served := filepath.Join(proxy, "github.com/taskbridge/taskbridge/adapters/toy/@v", version)
	if got := read(t, served+".mod"); got != want {
		t.Errorf("go.mod is\n%s\nwant\n%s", got, want)
	}
	if got := read(t, filepath.Join(filepath.Dir(served), "list")); got != version+"\n" {
		t.Errorf("list is %q", got)
	}
	if got, want := read(t, served+".info"), `{"Time":"2023-11-14T22:13:20Z","Version":"`+version+`"}`; got != want {
		t.Errorf("info is %s, want %s", got, want)
	}

	sum := release.Sums[workspace.Prefix+"core"]
	wantSums := workspace.Prefix + "core " + version + " " + sum.Zip + "\n" +
		workspace.Prefix + "core " + version + "/go.mod " + sum.GoMod + "\n"
	if got := read(t, filepath.Join(release.Stage, "adapters/toy/go.sum")); got != wantSums {
		t.Errorf("go.sum is\n%s\nwant\n%s", got, wantSums)
	}
}

func TestAZipHoldsTheModulesOwnFilesAndTheLicence(t *testing.T) {
	_, proxy := publish(t, repository(t, toy))
	archive, err := zip.OpenReader(filepath.Join(proxy, "github.com/taskbridge/taskbridge/adapters/toy/@v", version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	var names []string
	for _, f := range archive.File {
		names = append(names, strings.TrimPrefix(f.Name, workspace.Prefix+"adapters/toy@"+version+"/"))
	}
	slices.Sort(names)
	want := []string{".gitignore", "LICENSE", "go.mod", "go.sum", "toy.go", "toy.sh"}
	if !slices.Equal(names, want) {
		t.Errorf("the zip holds %q, want %q", names, want)
	}
}

func TestExamplesAndModulesOutsideTheWorkspaceAreNotPublished(t *testing.T) {
	release, _ := publish(t, repository(t, toy))
	if len(release.Sums) != 2 {
		t.Errorf("published are %v, want core and adapters/toy", release.Sums)
	}
}

func TestTagsLeadToTheFilesThatWerePublishedAndLeaveTheBranchAlone(t *testing.T) {
	w := repository(t, toy)
	release, _ := publish(t, w)
	before := git(t, w, "rev-parse", "HEAD")

	tags, err := release.Tag(w)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"core/" + version, "adapters/toy/" + version}; !slices.Equal(tags, want) {
		t.Errorf("tags are %q, want %q", tags, want)
	}
	if got, want := git(t, w, "show", "adapters/toy/"+version+":adapters/toy/go.mod"), read(t, filepath.Join(release.Stage, "adapters/toy/go.mod")); got != want {
		t.Errorf("the tag's go.mod is\n%s\nwant\n%s", got, want)
	}
	if got := git(t, w, "rev-parse", "core/"+version+"^{commit}~1"); got != before {
		t.Errorf("the release follows %s, want HEAD, %s", got, before)
	}
	if git(t, w, "rev-parse", "HEAD") != before || git(t, w, "status", "--porcelain") != "" {
		t.Error("the branch or the working tree has changed")
	}
	if trees := git(t, w, "worktree", "list"); strings.Count(trees, "\n") != 1 {
		t.Errorf("a working tree is left over:\n%s", trees)
	}
}

func TestATreeWithChangesIsNotTagged(t *testing.T) {
	w := repository(t, toy)
	release, _ := publish(t, w)
	write(t, filepath.Join(w.Root, "core/core.go"), "package core // changed\n")
	if tags, err := release.Tag(w); err == nil {
		t.Errorf("made the tags %q", tags)
	}
}

func TestACommitThatIsNotWhatWasPublishedGetsNoTag(t *testing.T) {
	w := repository(t, toy)
	release, _ := publish(t, w)
	write(t, filepath.Join(w.Root, "core/core.go"), "package core // changed\n")
	git(t, w, "commit", "--quiet", "-am", "Changed")
	if tags, err := release.Tag(w); err == nil {
		t.Errorf("made the tags %q", tags)
	}
	if tags := git(t, w, "tag"); tags != "" {
		t.Errorf("left the tags %q", tags)
	}
}

func TestWhatCannotBeReleasedIsRefused(t *testing.T) {
	for _, c := range []struct{ name, version, goMod string }{
		{"a version without its v", "1.2.3", toy["core/go.mod"]},
		{"a version that is not whole", "v1.2", toy["core/go.mod"]},
		{"a replaced library", version, toy["core/go.mod"] + "\nreplace example.com/library => example.com/fork v1.0.0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := repository(t, toy)
			write(t, filepath.Join(w.Root, "core/go.mod"), c.goMod)
			if _, err := Publish(load(t, w.Root), c.version, t.TempDir(), t.TempDir(), time.Now()); err == nil {
				t.Error("published")
			}
		})
	}
}

func git(t *testing.T, w *workspace.Workspace, args ...string) string {
	t.Helper()
	out, err := w.Git(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
