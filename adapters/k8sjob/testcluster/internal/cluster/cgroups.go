package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupFolder = "/sys/fs/cgroup"

// unified says whether the host has cgroup v2 alone.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupFolder, "cgroup.controllers"))
	return err == nil
}

// makeCgroups makes the control group that all pods will be below, in each
// hierarchy: the kubelet wants it to be there.
func makeCgroups(name string) error {
	if unified() {
		return makeUnifiedCgroup(name)
	}
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		group := filepath.Join(hierarchy, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			return fmt.Errorf("make a control group: %w", err)
		}
		// A new group of this kind takes no process until it has these.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(hierarchy, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), value, 0o644)
			}
			if err != nil {
				return fmt.Errorf("set up a control group: %w", err)
			}
		}
	}
	return nil
}

// makeUnifiedCgroup makes the group and hands it all controllers that there are.
func makeUnifiedCgroup(name string) error {
	controllers, err := os.ReadFile(filepath.Join(cgroupFolder, "cgroup.controllers"))
	if err != nil {
		return err
	}
	group := filepath.Join(cgroupFolder, name)
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Errorf("make a control group: %w", err)
	}
	for _, controller := range strings.Fields(string(controllers)) {
		for _, folder := range []string{cgroupFolder, group} {
			if err := os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
				return fmt.Errorf("hand the controller %s to a control group: %w", controller, err)
			}
		}
	}
	return nil
}

// hierarchies are the mount points of cgroup v1's controllers, and of v2 where it is
// mounted beside them.
func hierarchies() ([]string, error) {
	if unified() {
		return []string{cgroupFolder}, nil
	}
	entries, err := os.ReadDir(cgroupFolder)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		folder := filepath.Join(cgroupFolder, entry.Name())
		if _, err := os.Stat(filepath.Join(folder, "cgroup.procs")); err == nil && entry.IsDir() {
			found = append(found, folder)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no control groups below %s", cgroupFolder)
	}
	return found, nil
}

// cgroups are all groups of the cluster, the innermost first.
func (s *state) cgroups() []string {
	hierarchies, err := hierarchies()
	if err != nil {
		return nil
	}
	var groups []string
	for _, hierarchy := range hierarchies {
		err := filepath.WalkDir(filepath.Join(hierarchy, filepath.Base(s.Dir)), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // gone meanwhile
				return nil
			}
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		if err != nil {
			return nil
		}
	}
	slices.Reverse(groups)
	return groups
}

func cgroupProcesses(group string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		if pid > 0 { // 0: of another pid namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// removeCgroups removes the cluster's groups. A group stays busy for a moment after
// its last process.
func (s *state) removeCgroups() error {
	return eventually("remove the cluster's control groups", func() (bool, error) {
		done := true
		for _, group := range s.cgroups() {
			err := unix.Rmdir(group)
			if errors.Is(err, unix.EBUSY) {
				done = false
			} else if err != nil && !errors.Is(err, unix.ENOENT) {
				return false, fmt.Errorf("remove the control group %s: %w", group, err)
			}
		}
		return done, nil
	})
}
