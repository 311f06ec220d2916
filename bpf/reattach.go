// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// reattach puts the pinned cgroup programs of a directory on the cgroup that is
// there now. Somebody may have removed the one they were attached to, and then
// the kernel let go of them without a word. And the links may hold the programs
// of another build, with which they are shared while it is being replaced.
func reattach(o Options, names []string, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(o.Cgroup, &st); err != nil {
		return &os.PathError{Op: "stat", Path: o.Cgroup, Err: err}
	}
	demanded, err := demandPins(dir, enforcerProgIngress)
	if err != nil {
		return err
	}
	for range demanded {
		names = append(slices.Clone(names), enforcerProgIngress)
	}
	for _, name := range names {
		if err := reattachOne(o.Cgroup, st.Ino, name, dir); err != nil {
			return fmt.Errorf("attach %s again to %s: %w", name, o.Cgroup, err)
		}
	}
	return nil
}

func reattachOne(cgroup string, id uint64, name, dir string) error {
	program, err := ebpf.LoadPinnedProgram(filepath.Join(dir, "programs", name), nil)
	if err != nil {
		return err
	}
	defer program.Close()
	pin := filepath.Join(dir, "links", name)
	old, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	defer old.Close()
	info, err := old.Info()
	if err != nil {
		return err
	}
	if at := info.Cgroup(); at != nil && at.CgroupId == id {
		return update(old, info.Program, program)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attachType(name), Program: program})
	if err != nil {
		return err
	}
	defer l.Close()
	making := filepath.Join(dir, "links", newPrefix+name)
	if err := os.Remove(making); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed here
		return err
	}
	if err := l.Pin(making); err != nil {
		return err
	}
	return os.Rename(making, pin)
}

// update puts a program into a link, unless it is the one there.
func update(l link.Link, has ebpf.ProgramID, program *ebpf.Program) error {
	info, err := program.Info()
	if err != nil {
		return err
	}
	if id, _ := info.ID(); id == has {
		return nil
	}
	return l.Update(program)
}
