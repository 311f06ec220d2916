// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes, fills, watches, kills and removes the cgroups of
// sessions, on cgroup v2 wherever it is mounted.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNone says that no cgroup v2 hierarchy is mounted.
var ErrNone = errors.New("no cgroup v2 hierarchy is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup), or boot with systemd.unified_cgroup_hierarchy=1")

// Root returns where the cgroup v2 hierarchy is mounted: /sys/fs/cgroup on most
// hosts, /sys/fs/cgroup/unified on hybrid ones.
func Root() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	defer f.Close()
	return findRoot(bufio.NewScanner(f))
}

func findRoot(lines *bufio.Scanner) (string, error) {
	for lines.Scan() {
		// 36 35 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
		mount, source, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && strings.HasPrefix(source, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	return "", ErrNone
}

// Parent is the cgroup below which each session has its own.
type Parent struct {
	Path  string // directory
	Level uint32 // depth of its children below the hierarchy's root
	root  string
	each  int // processes that a child may have; 0: as many as the host
}

// Open makes the parent cgroup NAME (a path below the hierarchy's root) if it
// is missing.
func Open(name string) (*Parent, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	clean := filepath.Clean("/" + name)
	if clean == "/" {
		return nil, errors.New("open the sessions' cgroup: its name is empty; nothing may be attached to the hierarchy's root")
	}
	path := filepath.Join(root, clean)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the sessions' cgroup: %w", err)
	}
	return &Parent{Path: path, root: root, Level: uint32(strings.Count(clean, "/")) + 1}, nil
}

// Remove removes the parent, which must have no children.
func (p *Parent) Remove() error { return os.Remove(p.Path) }

// Group is one session's cgroup.
type Group struct {
	Path string
	ID   uint64 // as the kernel numbers it
}

// Make makes a child cgroup.
func (p *Parent) Make(name string) (*Group, error) {
	path := filepath.Join(p.Path, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the session's cgroup: %w", err)
	}
	if p.each > 0 {
		if err := limit(path, p.each); err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
	}
	return p.Child(name)
}

// Child returns a child cgroup that exists; fs.ErrNotExist says that it doesn't.
func (p *Parent) Child(name string) (*Group, error) {
	path := filepath.Join(p.Path, name)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("look at the session's cgroup: %w", &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	return &Group{Path: path, ID: st.Ino}, nil
}

// Children returns the names of all child cgroups.
func (p *Parent) Children() ([]string, error) {
	entries, err := os.ReadDir(p.Path)
	if err != nil {
		return nil, fmt.Errorf("list the sessions' cgroups: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Of returns the name of the child cgroup that a process is in; ok is false
// where it is in none.
func (p *Parent) Of(pid int) (name string, ok bool, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", false, fmt.Errorf("find the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		rest, below := strings.CutPrefix(filepath.Join(p.root, at), p.Path+"/")
		name, _, _ := strings.Cut(rest, "/")
		return name, below, nil
	}
	return "", false, nil
}

// Add moves a whole process into the cgroup.
func (g *Group) Add(pid int) error {
	err := os.WriteFile(filepath.Join(g.Path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	if err != nil {
		return fmt.Errorf("move process %d into the session's cgroup: %w", pid, err)
	}
	return nil
}

// Processes counts the processes in the cgroup.
func (g *Group) Processes() (int, error) {
	data, err := os.ReadFile(filepath.Join(g.Path, "cgroup.procs"))
	if err != nil {
		return 0, fmt.Errorf("count the session's processes: %w", err)
	}
	return strings.Count(string(data), "\n"), nil
}

// Each calls f with the cgroup and those below it, which a session may have made,
// the upper ones first.
func (g *Group) Each(f func(path string, id uint64) error) error {
	err := filepath.WalkDir(g.Path, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == unix.ENOENT {
			return nil
		} else if err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		return f(path, st.Ino)
	})
	if err != nil {
		return fmt.Errorf("look at the session's cgroups: %w", err)
	}
	return nil
}

// PIDs returns the processes in the cgroup and below it.
func (g *Group) PIDs() (pids []int, err error) {
	err = g.Each(func(path string, _ uint64) error {
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // removed meanwhile, or of threads, whose processes the cgroup above lists
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	return pids, err
}

// Populated tells whether any process lives in the cgroup or below it.
func (g *Group) Populated() (bool, error) {
	data, err := os.ReadFile(filepath.Join(g.Path, "cgroup.events"))
	if err != nil {
		return false, fmt.Errorf("look for the session's processes: %w", err)
	}
	return strings.Contains(string(data), "populated 1"), nil
}

// Kill kills every process in the cgroup and below it, including those that are
// being forked.
func (g *Group) Kill() error {
	if err := os.WriteFile(filepath.Join(g.Path, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("kill the session: %w", err)
	}
	return nil
}

// Remove removes the cgroup and those below it, once the last of its dying
// processes has left.
func (g *Group) Remove() error {
	var err error
	for range 100 {
		if err = removeTree(g.Path); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("remove the session's cgroup: %w", err)
	}
	return nil
}

func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
