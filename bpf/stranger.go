// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// setGlobal tells the programs which cgroup it is that nothing may be in but
// sessions, and how much agents may tell.
func (e *Enforcer) setGlobal() error {
	var st unix.Stat_t
	if err := unix.Stat(e.cgroup, &st); err != nil {
		return &os.PathError{Op: "stat", Path: e.cgroup, Err: err}
	}
	g, err := e.globals()
	if err != nil {
		return err
	}
	g.Parent = st.Ino
	g.TellRate, g.TellBurst = e.tell.limits()
	return e.setGlobals(g)
}

// labelStrangers confines the processes that were in the sessions' cgroup before
// the programs were: those that come later are labelled by the programs.
func (e *Enforcer) labelStrangers() error {
	if !e.full {
		return nil
	}
	return filepath.WalkDir(e.cgroup, func(dir string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !entry.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for processes in the sessions' cgroup: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		for pid := range strings.FieldsSeq(string(procs)) {
			if err := e.labelStranger(pid, st.Ino); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Enforcer) labelStranger(pid string, cgroup uint64) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("look for processes in the sessions' cgroup: %w", err)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold process %d: %w", n, err)
	}
	defer unix.Close(fd)
	err = e.Label(fd, Session{Cgroup: cgroup})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
