// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/cgroup"
)

// stopLimit bounds how long a tree may take to stand still.
const stopLimit = 5 * time.Second

// maxPasses bounds how often a tree is looked through for processes that are new.
const maxPasses = 1000

// tree is a process and its descendants, stopped in a cgroup of their own.
type tree struct {
	parent  *cgroup.Parent
	staging *cgroup.Group
	apart   map[int]string      // processes that are not of the tree, whatever they look like
	refuse  func(pid int) error // why a process cannot be adopted; nil: it can
	began   uint64              // clock ticks since boot
	above   []int               // the ancestors of the root

	moved   bool      // some of it is in a session, for good
	members []*member // the root first
	byPID   map[int]*member
}

// member is a process of a tree.
type member struct {
	pid   int
	from  string   // directory of the cgroup that it was in
	pidfd *os.File // closed with the tree
	gone  bool     // it was killed
}

// stopTree stops a process and all its descendants. The tree that it returns is to
// be released or moved on, also where there is an error.
func stopTree(parent *cgroup.Parent, name string, pid int, apart map[int]string, refuse func(pid int) error) (*tree, error) {
	t := &tree{parent: parent, apart: apart, refuse: refuse, byPID: map[int]*member{}}
	root, err := processStat(pid)
	if err != nil {
		return t, err
	}
	for at := root.parent; at > 0; {
		t.above = append(t.above, at)
		s, err := processStat(at)
		if err != nil {
			return t, err
		}
		at = s.parent
	}
	if t.began, err = ticksNow(); err != nil {
		return t, err
	}
	if t.staging, err = parent.Beside(name); err != nil {
		return t, err
	}
	if err := t.staging.Freeze(); err != nil {
		return t, err
	}
	if err := t.add(pid); err != nil {
		return t, err
	}
	if len(t.members) == 0 {
		return t, fmt.Errorf("process %d has ended", pid)
	}
	return t, t.complete()
}

// complete adds descendants until there are no new ones. A process that has
// stopped forks no more, so once all have and a pass finds none, that is all.
func (t *tree) complete() error {
	for range maxPasses {
		more, err := t.addDescendants(false)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if err := t.staging.Stopped(stopLimit); err != nil {
			return err
		}
		if more, err = t.addDescendants(true); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return errors.New("its processes multiply faster than they can be stopped: stop what starts them first")
}

// add moves a process to where it stops. One that has ended is left out.
func (t *tree) add(pid int) error {
	if t.byPID[pid] != nil {
		return nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold process %d: %w", pid, err)
	}
	m := &member{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
	stat, err := processStat(pid)
	if err == nil {
		m.from, err = t.parent.Directory(pid)
	}
	if hasEnded(err) || err == nil && stat.ended() {
		return m.pidfd.Close()
	}
	if err == nil {
		err = t.refuse(pid)
	}
	if err == nil {
		err = t.staging.Add(pid)
	}
	if err != nil && endedMeanwhile(pid) {
		return m.pidfd.Close()
	}
	if err != nil {
		return errors.Join(err, m.pidfd.Close())
	}
	t.members = append(t.members, m)
	t.byPID[pid] = m
	return nil
}

// addDescendants looks through all processes once for children of the tree, and for
// orphans where they are wanted.
func (t *tree) addDescendants(orphans bool) (more bool, err error) {
	pids, err := allPIDs()
	if err != nil {
		return false, err
	}
	before := len(t.members)
	for _, pid := range pids {
		if t.byPID[pid] != nil {
			continue
		}
		s, err := processStat(pid)
		if hasEnded(err) || err == nil && s.ended() {
			continue
		}
		if err != nil {
			return false, err
		}
		ours := t.byPID[s.parent] != nil
		if !ours && orphans {
			if ours, err = t.orphan(pid, s); err != nil {
				return false, err
			}
		}
		if ours {
			if err := t.add(pid); err != nil {
				return false, err
			}
		}
	}
	return len(t.members) > before, nil
}

// orphan tells whether a process that an ancestor of the tree has been given is of
// the tree: its parent ended, perhaps while the tree was being stopped. One whose
// process group or session is led by the tree is. Of one that has just started and
// may be one or may be none, that is not guessed.
func (t *tree) orphan(pid int, s stat) (bool, error) {
	if t.apart[pid] != "" || !slices.Contains(t.above, s.parent) {
		return false, nil
	}
	if t.byPID[s.group] != nil || t.byPID[s.session] != nil {
		return true, nil
	}
	if s.start < t.began {
		return false, nil
	}
	from, err := t.parent.Directory(pid)
	if err == nil && slices.ContainsFunc(t.members, func(m *member) bool { return m.from == from }) {
		return false, fmt.Errorf("process %d started meanwhile, and may be one of the tree that has lost its parent: try again", pid)
	}
	return false, nil
}

// allPIDs lists the processes of the host.
func allPIDs() (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// release lets every process go on where it was, as it was. Of a tree that is partly
// in a session nothing goes on.
func (t *tree) release() error {
	var errs []error
	if t.moved {
		return errors.Join(t.staging.Kill(), t.staging.Thaw(), t.close())
	}
	for _, m := range t.members {
		if err := cgroup.Return(m.pid, m.from); err != nil && !m.gone && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	if t.staging != nil {
		// What cannot go back goes on where it is.
		errs = append(errs, t.staging.Thaw())
	}
	return errors.Join(append(errs, t.close())...)
}

// undo releases a tree, and adds to an error what became of it.
func (t *tree) undo(err error) error {
	release := t.release()
	var killed []int
	for _, m := range t.members {
		if m.gone || t.moved {
			killed = append(killed, m.pid)
		}
	}
	switch {
	case err == nil:
	case len(killed) > 0:
		err = fmt.Errorf("%w (killed: %v; any other process of the tree goes on as it was)", err, killed)
	default:
		err = fmt.Errorf("%w (the tree goes on as it was)", err)
	}
	return errors.Join(err, release)
}

// close lets go of a tree whose processes are where they belong.
func (t *tree) close() (err error) {
	for _, m := range t.members {
		err = errors.Join(err, m.pidfd.Close())
	}
	if t.staging != nil {
		err = errors.Join(err, t.staging.Remove())
	}
	return err
}

// kill kills one process of the tree, and waits until it has let go of everything.
func (t *tree) kill(m *member) error {
	err := unix.PidfdSendSignal(int(m.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", m.pid, err)
	}
	m.gone = true
	poll := []unix.PollFd{{Fd: int32(m.pidfd.Fd()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(stopLimit); ; {
		n, err := unix.Poll(poll, int(stopLimit.Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR || time.Now().After(deadline) {
			return fmt.Errorf("kill process %d: it has not ended: %w", m.pid, errors.Join(err, os.ErrDeadlineExceeded))
		}
	}
}

// left returns the processes that were not killed.
func (t *tree) left() (list []*member) {
	for _, m := range t.members {
		if !m.gone {
			list = append(list, m)
		}
	}
	return list
}

func (t *tree) pids() (pids []int) {
	for _, m := range t.left() {
		pids = append(pids, m.pid)
	}
	return pids
}

// endedMeanwhile tells whether a process that could not be looked at has ended.
func endedMeanwhile(pid int) bool {
	stat, err := processStat(pid)
	return hasEnded(err) || err == nil && stat.ended()
}

// hasEnded: the process that a file of /proc is of has ended.
func hasEnded(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}
