// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// reattach puts the cgroup programs of a pin directory on the cgroup that is
// there now. Somebody may have removed the one they were attached to, and then
// the kernel let go of them without a word.
func reattach(o Options, names []string, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(o.Cgroup, &st); err != nil {
		return &os.PathError{Op: "stat", Path: o.Cgroup, Err: err}
	}
	for _, name := range names {
		if err := reattachOne(o.Cgroup, st.Ino, name, filepath.Join(dir, "links")); err != nil {
			return fmt.Errorf("attach %s again to %s: %w", name, o.Cgroup, err)
		}
	}
	return nil
}

func reattachOne(cgroup string, id uint64, name, links string) error {
	pin := filepath.Join(links, name)
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
		return nil
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	defer program.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attachType(name), Program: program})
	if err != nil {
		return err
	}
	defer l.Close()
	making := filepath.Join(links, newPrefix+name)
	if err := os.Remove(making); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed here
		return err
	}
	if err := l.Pin(making); err != nil {
		return err
	}
	return os.Rename(making, pin)
}
