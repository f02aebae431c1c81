package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/taskbridge/taskbridge/release/workspace"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// Tag makes a commit on top of HEAD that holds the released go.mod and go.sum
// files, and gives it one tag a module, "core/v1.2.3". The commit is on no
// branch: there the replace lines stay. The working tree must be clean and is
// left as it is; nothing is pushed. The tags are returned.
//
// A module proxy makes its zips from the tags; Tag checks that they are the ones
// that Publish made, whose checksums the released go.sum files name.
func (r *Release) Tag(w *workspace.Workspace) (tags []string, err error) {
	status, err := w.Git("status", "--porcelain")
	if err != nil {
		return nil, err
	}
	if status != "" {
		return nil, errors.New("the working tree is not clean: commit first, so that the release is what was tested")
	}
	tree, err := os.MkdirTemp("", "taskbridge-release-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tree)) }()
	checkout := filepath.Join(tree, "checkout")
	if _, err := w.Git("worktree", "add", "--quiet", "--detach", checkout, "HEAD"); err != nil {
		return nil, err
	}
	defer func() {
		_, removeErr := w.Git("worktree", "remove", "--force", checkout)
		err = errors.Join(err, removeErr)
	}()
	commit, err := r.commit(w, checkout)
	if err != nil {
		return nil, err
	}
	for _, m := range w.Published() {
		if err := r.checkCommit(w, m, commit); err != nil {
			return nil, err
		}
		tags = append(tags, m.Dir+"/"+r.Version)
	}
	for i, tag := range tags {
		if _, err := w.Git("tag", "-a", "-m", "Release "+tag, tag, commit); err != nil {
			for _, made := range tags[:i] {
				_, undoErr := w.Git("tag", "-d", made)
				err = errors.Join(err, undoErr)
			}
			return nil, err
		}
	}
	return tags, nil
}

// commit records the released files on top of what is checked out, and returns
// the commit's id.
func (r *Release) commit(w *workspace.Workspace, checkout string) (id string, err error) {
	for _, m := range w.Published() {
		for _, name := range []string{"go.mod", "go.sum"} {
			err := copyFile(filepath.Join(checkout, filepath.FromSlash(m.Dir), name), r.file(m, name))
			if err != nil && !os.IsNotExist(err) {
				return "", err
			}
		}
	}
	if _, err := w.Git("-C", checkout, "add", "--all"); err != nil {
		return "", err
	}
	if _, err := w.Git("-C", checkout, "commit", "--quiet", "--allow-empty", "-m", "Release "+r.Version); err != nil {
		return "", err
	}
	id, err = w.Git("-C", checkout, "rev-parse", "HEAD")
	return strings.TrimSpace(id), err
}

// checkCommit makes the module's zip from the commit, as a module proxy does.
func (r *Release) checkCommit(w *workspace.Workspace, m workspace.Module, commit string) (err error) {
	f, err := os.CreateTemp("", "taskbridge-release-*.zip")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	err = zip.CreateFromVCS(f, module.Version{Path: m.Path, Version: r.Version}, w.Root, commit, m.Dir)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	sum, err := dirhash.HashZip(f.Name(), dirhash.Hash1)
	if err == nil && sum != r.Sums[m.Path].Zip {
		err = fmt.Errorf("module %s: the commit's zip has the checksum %s, the published one %s", m.Path, sum, r.Sums[m.Path].Zip)
	}
	return err
}
