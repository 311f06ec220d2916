// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFrozen says that a cgroup's processes did not stop in time.
var ErrNotFrozen = errors.New("not all of its processes have stopped")

// Beside makes a cgroup next to the parent, whose processes are not in a session.
func (p *Parent) Beside(name string) (*Group, error) {
	path := p.Path + "-" + name
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup beside the sessions': %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("make a cgroup beside the sessions': %w", &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	return &Group{Path: path, ID: st.Ino}, nil
}

// AllBeside returns the names of the cgroups that Beside made and nobody removed.
func (p *Parent) AllBeside(prefix string) (groups []*Group, err error) {
	paths, err := filepath.Glob(escapeGlob(p.Path+"-"+prefix) + "*")
	if err != nil {
		return nil, fmt.Errorf("list the cgroups beside the sessions': %w", err)
	}
	for _, path := range paths {
		groups = append(groups, &Group{Path: path})
	}
	return groups, nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// Directory returns the directory of the cgroup that a process is in.
func (p *Parent) Directory(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("find the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		if at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return filepath.Join(p.root, at), nil
		}
	}
	return "", fmt.Errorf("find the cgroup of process %d: it is in none of version 2", pid)
}

// Return moves a whole process into the cgroup of a directory, which is made again
// where it was removed meanwhile.
func Return(pid int, directory string) error {
	procs := filepath.Join(directory, "cgroup.procs")
	err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(directory, 0o755); err == nil {
			err = os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("move process %d back to its cgroup: %w", pid, err)
	}
	return nil
}

// Freeze stops whatever is in the cgroup, and whatever comes into it, until Thaw.
func (g *Group) Freeze() error { return g.setFrozen("1") }

// Thaw lets the processes of the cgroup go on.
func (g *Group) Thaw() error { return g.setFrozen("0") }

func (g *Group) setFrozen(value string) error {
	if err := os.WriteFile(filepath.Join(g.Path, "cgroup.freeze"), []byte(value), 0); err != nil {
		return fmt.Errorf("freeze or thaw the cgroup: %w", err)
	}
	return nil
}

// Stopped waits until every process of a cgroup that was frozen has stopped;
// ErrNotFrozen says that one has not, within limit.
func (g *Group) Stopped(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(g.Path, "cgroup.events"))
		if err != nil {
			return fmt.Errorf("look whether the cgroup is frozen: %w", err)
		}
		if strings.Contains(string(data), "frozen 1") {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("freeze the cgroup: %w: one may wait for a device or a network file system", ErrNotFrozen)
		}
	}
}
