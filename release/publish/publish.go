// Package publish turns the repository's modules into what others get: the
// replace lines dropped, sibling modules required at the version, zips with
// their checksums.
package publish

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/taskbridge/taskbridge/release/workspace"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// Release is what Publish has made.
type Release struct {
	Version string
	// Stage holds the modules' files as released, laid out as the repository.
	Stage string
	// Sums are the checksums by module path, as go.sum has them.
	Sums map[string]Sum
}

// Sum is a module's two checksums.
type Sum struct{ Zip, GoMod string }

// Publish writes every published module of w at the version into proxy, laid
// out so that file://proxy serves as a GOPROXY. stage and proxy are folders
// that are made if need be; what they hold already stays.
func Publish(w *workspace.Workspace, version, stage, proxy string, at time.Time) (*Release, error) {
	if semver.Canonical(version) != version {
		return nil, fmt.Errorf("version %q is not of the form v1.2.3", version)
	}
	release := &Release{Version: version, Stage: stage, Sums: map[string]Sum{}}
	for _, m := range w.Published() {
		if err := release.stage(w, m); err != nil {
			return nil, fmt.Errorf("module %s: %w", m.Path, err)
		}
		if err := release.serve(m, proxy, at); err != nil {
			return nil, fmt.Errorf("module %s: %w", m.Path, err)
		}
	}
	return release, nil
}

// stage copies the module's files and rewrites its go.mod and go.sum.
func (r *Release) stage(w *workspace.Workspace, m workspace.Module) error {
	files, err := w.Files(m.Dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := copyFile(filepath.Join(r.Stage, filepath.FromSlash(file)), filepath.Join(w.Root, filepath.FromSlash(file))); err != nil {
			return err
		}
	}
	// The go command does the same for a module below the root.
	if !slices.Contains(files, path.Join(m.Dir, "LICENSE")) {
		if err := copyFile(r.file(m, "LICENSE"), filepath.Join(w.Root, "LICENSE")); err != nil {
			return err
		}
	}
	return r.rewrite(m)
}

func (r *Release) rewrite(m workspace.Module) error {
	for _, replace := range slices.Clone(m.File.Replace) {
		if !strings.HasPrefix(replace.Old.Path, workspace.Prefix) {
			return fmt.Errorf("go.mod replaces %s, which would not count for those who depend on the module", replace.Old.Path)
		}
		if err := m.File.DropReplace(replace.Old.Path, replace.Old.Version); err != nil {
			return err
		}
	}
	var lines []string
	for _, sibling := range m.Siblings() {
		sum, ok := r.Sums[sibling]
		if !ok {
			return fmt.Errorf("go.mod requires %s, which is not published", sibling)
		}
		if err := m.File.AddRequire(sibling, r.Version); err != nil {
			return err
		}
		lines = append(lines,
			fmt.Sprintf("%s %s %s", sibling, r.Version, sum.Zip),
			fmt.Sprintf("%s %s/go.mod %s", sibling, r.Version, sum.GoMod))
	}
	m.File.Cleanup()
	data, err := m.File.Format()
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.file(m, "go.mod"), data, 0o600); err != nil {
		return err
	}
	if len(lines) == 0 {
		return nil
	}
	return addSums(r.file(m, "go.sum"), lines)
}

// serve zips the staged module into the proxy and records its checksums.
func (r *Release) serve(m workspace.Module, proxy string, at time.Time) error {
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	dir := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	base := filepath.Join(dir, r.Version)
	if err := zipModule(base+".zip", module.Version{Path: m.Path, Version: r.Version}, r.file(m, "")); err != nil {
		return err
	}
	if err := copyFile(base+".mod", r.file(m, "go.mod")); err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": r.Version, "Time": at.UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".info", info, 0o600); err != nil {
		return err
	}
	if err := addVersion(filepath.Join(dir, "list"), r.Version); err != nil {
		return err
	}
	sum := Sum{}
	if sum.Zip, err = dirhash.HashZip(base+".zip", dirhash.Hash1); err != nil {
		return err
	}
	sum.GoMod, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(base + ".mod") })
	r.Sums[m.Path] = sum
	return err
}

// file returns the place of a staged module's file.
func (r *Release) file(m workspace.Module, name string) string {
	return filepath.Join(r.Stage, filepath.FromSlash(m.Dir), name)
}

func zipModule(file string, version module.Version, dir string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	return zip.CreateFromDir(f, version, dir)
}

// addSums adds lines to a go.sum and sorts it as the go command does.
func addSums(file string, lines []string) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	versions := map[module.Version]string{}
	var order []module.Version
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return fmt.Errorf("%s: malformed line %q", file, line)
		}
		version := module.Version{Path: fields[0], Version: fields[1]}
		if _, ok := versions[version]; !ok {
			order = append(order, version)
		}
		versions[version] = line
	}
	module.Sort(order)
	var out strings.Builder
	for _, version := range order {
		out.WriteString(versions[version] + "\n")
	}
	return os.WriteFile(file, []byte(out.String()), 0o600)
}

func addVersion(file, version string) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	versions := append(strings.Fields(string(data)), version)
	semver.Sort(versions)
	return os.WriteFile(file, []byte(strings.Join(slices.Compact(versions), "\n")+"\n"), 0o600)
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm()|0o600)
}
