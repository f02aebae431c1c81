// Package workspace knows which Go modules the repository has and how they
// depend on each other.
package workspace

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Prefix begins the path of every module of the repository.
const Prefix = "github.com/taskbridge/taskbridge/"

// Module is one Go module of the repository.
type Module struct {
	// Path is the module's path, Prefix and Dir.
	Path string
	// Dir is the module's folder, slash-separated and relative to the root.
	Dir string
	// File is its go.mod.
	File *modfile.File
	// InWork: go.work uses the module.
	InWork bool
}

// Published reports whether others may depend on the module: it is part of the
// workspace and no example.
func (m Module) Published() bool {
	return m.InWork && !strings.HasPrefix(m.Dir, "examples/")
}

// Siblings returns the paths of the repository's modules that m requires.
func (m Module) Siblings() []string {
	var siblings []string
	for _, require := range m.File.Require {
		if strings.HasPrefix(require.Mod.Path, Prefix) {
			siblings = append(siblings, require.Mod.Path)
		}
	}
	return siblings
}

// Workspace is the repository's modules, sorted so that each one follows those
// that it requires.
type Workspace struct {
	// Root is the absolute path of the repository.
	Root    string
	Modules []Module
}

// Load reads all go.mod files of the repository that dir lies in. Files that
// git ignores are not looked at.
func Load(dir string) (*Workspace, error) {
	w := &Workspace{Root: dir}
	root, err := w.Git("rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	w.Root = strings.TrimSpace(root)
	used, err := readWork(filepath.Join(w.Root, "go.work"))
	if err != nil {
		return nil, err
	}
	files, err := w.Files(".")
	if err != nil {
		return nil, err
	}
	var modules []Module
	for _, file := range files {
		if path.Base(file) != "go.mod" {
			continue
		}
		module, err := readModule(w.Root, path.Dir(file))
		if err != nil {
			return nil, err
		}
		module.InWork = slices.Contains(used, module.Dir)
		modules = append(modules, module)
	}
	w.Modules, err = sorted(modules)
	return w, err
}

// Published returns the modules that others may depend on, in order.
func (w *Workspace) Published() []Module {
	return slices.DeleteFunc(slices.Clone(w.Modules), func(m Module) bool { return !m.Published() })
}

// Files returns the files below a folder of the repository, slash-separated and
// relative to the root: those on disk that git tracks or would track.
func (w *Workspace) Files(dir string) ([]string, error) {
	out, err := w.Git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for file := range strings.SplitSeq(out, "\x00") {
		// A tracked file that has been deleted is listed still.
		if info, err := os.Lstat(filepath.Join(w.Root, filepath.FromSlash(file))); err == nil && info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// Git runs git at the root and returns what it prints.
func (w *Workspace) Git(args ...string) (string, error) {
	command := exec.Command("git", args...)
	command.Dir = w.Root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func readWork(file string) (dirs []string, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork(file, data, nil)
	if err != nil {
		return nil, err
	}
	for _, use := range work.Use {
		dirs = append(dirs, path.Clean(use.Path))
	}
	return dirs, nil
}

func readModule(root, dir string) (Module, error) {
	file := filepath.Join(root, filepath.FromSlash(dir), "go.mod")
	data, err := os.ReadFile(file)
	if err != nil {
		return Module{}, err
	}
	parsed, err := modfile.Parse(file, data, nil)
	if err != nil {
		return Module{}, err
	}
	if parsed.Module == nil || parsed.Module.Mod.Path != Prefix+dir {
		return Module{}, fmt.Errorf("%s: the module's path must be %s%s", file, Prefix, dir)
	}
	return Module{Path: parsed.Module.Mod.Path, Dir: dir, File: parsed}, nil
}

// sorted puts each module behind the ones that it requires.
func sorted(modules []Module) ([]Module, error) {
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	var order []Module
	done := map[string]bool{}
	for len(order) < len(modules) {
		before := len(order)
		for _, m := range modules {
			ready := !slices.ContainsFunc(m.Siblings(), func(sibling string) bool { return !done[sibling] })
			if ready && !done[m.Path] {
				order, done[m.Path] = append(order, m), true
			}
		}
		if len(order) == before {
			return nil, fmt.Errorf("modules require each other in a circle, or one that is not there")
		}
	}
	return order, nil
}
