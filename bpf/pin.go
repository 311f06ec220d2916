// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Pins are laid out as PINDIR/DIGEST-TURN/{maps,links,programs}/NAME. DIGEST names
// the build, TURN the load. A directory that is being made has a name that starts
// with newPrefix, one that is being removed one with oldPrefix: renaming is the
// step from nothing to everything, and back. Of the others, which share their
// maps, the one whose TURN is in the global `turn` is in force.
const (
	newPrefix = "new-"
	oldPrefix = "old-"
)

// pinAll attaches the programs of coll and pins them, and the maps. A link to a
// cgroup that before has already is pinned once more instead: see reattach.
func pinAll(coll *ebpf.Collection, chosen programs, o Options, dir string, before *build) (err error) {
	making := filepath.Join(o.PinDir, newPrefix+filepath.Base(dir))
	shared, err := sharedLinks(chosen, o, before)
	if err != nil {
		return err
	}
	links, err := attachAll(coll, chosen, o, before, shared)
	if err != nil {
		return errors.Join(err, closeLinks(shared))
	}
	defer func() {
		closed := errors.Join(closeLinks(links), closeLinks(shared))
		if err != nil {
			err = errors.Join(err, removePins(making))
		}
		err = errors.Join(err, closed)
	}()
	for _, sub := range []string{"maps", "links", "programs"} {
		if err := os.MkdirAll(filepath.Join(making, sub), 0o700); err != nil {
			return fmt.Errorf("make a pin directory: %w", err)
		}
	}
	for name, m := range coll.Maps {
		if err := m.Pin(filepath.Join(making, "maps", pinName(name))); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for _, name := range slices.Concat(chosen.cgroup, chosen.kept) {
		if err := coll.Programs[name].Pin(filepath.Join(making, "programs", name)); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	for _, these := range []map[string]link.Link{links, shared} {
		for name, l := range these {
			if err := l.Pin(filepath.Join(making, "links", name)); err != nil {
				return fmt.Errorf("pin the link of %s: %w", name, err)
			}
		}
	}
	// Maps are pinned by descriptors that live on.
	if err := os.Rename(making, dir); err != nil {
		return fmt.Errorf("put the pins in place: %w", err)
	}
	return nil
}

// sharedLinks opens the links to cgroups that a build in force has: a cgroup's
// program can be replaced in its link, so that no call runs both or none.
func sharedLinks(chosen programs, o Options, before *build) (links map[string]link.Link, err error) {
	links = map[string]link.Link{}
	if before == nil {
		return links, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(o.Cgroup, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: o.Cgroup, Err: err}
	}
	for _, name := range slices.Concat(chosen.cgroup, []string{enforcerProgIngress}) {
		l, err := sharedLink(filepath.Join(before.dir, "links", name), st.Ino)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the link of %s: %w", name, err), closeLinks(links))
		}
		if l != nil {
			links[name] = l
		}
	}
	return links, nil
}

// sharedLink returns a link as if it were not pinned, nil where there is none to
// this cgroup.
func sharedLink(pin string, cgroup uint64) (link.Link, error) {
	pinned, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer pinned.Close()
	info, err := pinned.Info()
	if err != nil {
		return nil, err
	}
	if at := info.Cgroup(); at == nil || at.CgroupId != cgroup {
		return nil, nil
	}
	return link.NewFromID(info.ID)
}

func closeLinks(links map[string]link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// pinName: bpffs keeps names with a dot for itself.
func pinName(name string) string { return strings.ReplaceAll(name, ".", "_") }

// Remove detaches and unpins everything below a pin directory, of every build.
// Sessions that still run are no longer confined.
func Remove(pinDir string) error {
	entries, err := os.ReadDir(pinDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", pinDir, err)
	}
	var dirs []string
	for _, entry := range entries {
		dirs = append(dirs, filepath.Join(pinDir, entry.Name()))
	}
	if err := removeAll(dirs); err != nil {
		return err
	}
	if err := os.Remove(pinDir); err != nil {
		return fmt.Errorf("remove the pin directory: %w", err)
	}
	return nil
}

// removeAll removes directories of pins. Before any is touched, all are marked:
// what is left if that is interrupted is in force no more.
func removeAll(dirs []string) error {
	marked := make([]string, len(dirs))
	for i, dir := range dirs {
		name := filepath.Base(dir)
		marked[i] = dir
		if strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, oldPrefix) {
			continue
		}
		marked[i] = filepath.Join(filepath.Dir(dir), oldPrefix+name)
		if err := os.Rename(dir, marked[i]); err != nil {
			return fmt.Errorf("mark pins to be removed: %w", err)
		}
	}
	for _, dir := range marked {
		if err := removePins(dir); err != nil {
			return err
		}
	}
	return nil
}

// removePins detaches LSM programs all at once: one at a time, each costs a
// grace period.
func removePins(dir string) error {
	links, err := os.ReadDir(filepath.Join(dir, "links"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read pins: %w", err)
	}
	done := make(chan struct{})
	for _, entry := range links {
		go func() {
			defer func() { done <- struct{}{} }()
			l, err := link.LoadPinnedLink(filepath.Join(dir, "links", entry.Name()), nil)
			if err != nil {
				return
			}
			if err := l.Unpin(); err == nil {
				l.Close()
			}
		}()
	}
	for range links {
		<-done
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
