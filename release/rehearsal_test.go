package main

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/release/publish"
	"github.com/taskbridge/taskbridge/release/workspace"
)

const rehearsed = "v0.0.0-rehearsal"

// consumer is somebody who depends on the published modules: without the
// workspace, without the repository's files, with a module cache of their own.
type consumer struct {
	repository *workspace.Workspace
	dir        string
	env        []string
}

// newConsumer publishes all modules into a file-based GOPROXY.
func newConsumer(t *testing.T) *consumer {
	t.Helper()
	w, err := workspace.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	proxy, cache := t.TempDir(), t.TempDir()
	if _, err := publish.Publish(w, rehearsed, t.TempDir(), proxy, time.Now()); err != nil {
		t.Fatal(err)
	}
	c := &consumer{repository: w, dir: t.TempDir()}
	own := goEnv(t, c.dir, "GOMODCACHE")
	c.env = []string{
		"GOWORK=off",
		// What others have published is taken from the module cache of this
		// machine, which has been filled and verified by the other tests.
		"GOPROXY=" + strings.Join([]string{fileURL(proxy), fileURL(filepath.Join(own, "cache", "download")), goEnv(t, c.dir, "GOPROXY")}, ","),
		"GOSUMDB=off",
		"GOMODCACHE=" + cache,
		"GOBIN=" + filepath.Join(c.dir, "bin"),
		// modcacherw: or the cache could not be removed. trimpath: so that
		// compiled libraries do not depend on where this cache lies, and the
		// next rehearsal finds them built.
		"GOFLAGS=-modcacherw -trimpath -buildvcs=false",
	}
	return c
}

func goEnv(t *testing.T, dir, name string) string {
	t.Helper()
	command := exec.Command("go", "env", name)
	command.Dir = dir
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func fileURL(dir string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
}

// run runs a command in the consumer's folder and returns what it prints on its
// standard output.
func (c *consumer) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir = c.dir
	command.Env = append(os.Environ(), c.env...)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func (c *consumer) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// require makes the consumer's go.mod, with the modules at the rehearsed version.
func (c *consumer) require(t *testing.T, dirs ...string) {
	t.Helper()
	c.run(t, "go", "mod", "init", "example.com/consumer")
	args := []string{"get"}
	for _, dir := range dirs {
		args = append(args, workspace.Prefix+dir+"@"+rehearsed)
	}
	c.run(t, "go", args...)
	c.run(t, "go", "mod", "tidy")
	for _, dir := range dirs {
		// From the module cache, then, and not from the repository.
		module := c.run(t, "go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", workspace.Prefix+dir)
		if !strings.HasPrefix(module, rehearsed+" ") || strings.Contains(module, c.repository.Root) {
			t.Fatalf("the consumer has %s as %s", dir, module)
		}
	}
}

var readmeProgram = regexp.MustCompile("(?s)```go\n(package main\n.*?)```")

func TestTheReadmesEmbeddingExampleBuildsAndRunsOutsideTheWorkspace(t *testing.T) {
	c := newConsumer(t)
	readme, err := os.ReadFile(filepath.Join(c.repository.Root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	program := readmeProgram.FindSubmatch(readme)
	if program == nil {
		t.Fatal("README.md has no Go program")
	}
	c.write(t, "main.go", program[1])
	c.require(t, "core", "fakes")
	c.run(t, "go", "vet", ".")

	var types []string
	for line := range strings.Lines(c.run(t, "go", "run", ".")) {
		if match := regexp.MustCompile(`^\{"type":"(\w+)"`).FindStringSubmatch(line); match != nil {
			types = append(types, match[1])
		}
	}
	if got, want := strings.Join(types, " "), "TASK_STARTED TASK_PROGRESS TASK_PROGRESS TASK_PROGRESS TASK_COMPLETED"; got != want {
		t.Errorf("the program prints the events %s, want %s", got, want)
	}
}

func TestTheEmbeddingExampleIsTestedOutsideTheWorkspace(t *testing.T) {
	c := newConsumer(t)
	files, err := c.repository.Files("examples/embedding/*.go")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples/embedding has the files %q, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(c.repository.Root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, filepath.Base(file), content)
	}
	c.require(t, "core", "fakes")
	if out := c.run(t, "go", "test", "."); !strings.HasPrefix(out, "ok ") {
		t.Errorf("go test says %s", out)
	}
}

func TestTheServerInstallsAtAVersionAndSaysWhich(t *testing.T) {
	c := newConsumer(t)
	c.run(t, "go", "install", workspace.Prefix+"server/cmd/taskbridge@"+rehearsed)
	if out := c.run(t, filepath.Join(c.dir, "bin", "taskbridge"), "version"); !strings.Contains(out, rehearsed) {
		t.Errorf("taskbridge version says %q, want %s in it", out, rehearsed)
	}
}
