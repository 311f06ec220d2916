// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Pins are laid out as PINDIR/DIGEST/maps/NAME and PINDIR/DIGEST/links/NAME,
// where DIGEST names the build. A directory that is being made has a name that
// starts with newPrefix; its renaming is the step from nothing to everything.
const newPrefix = "new-"

// OtherBuildError says that programs of another build are pinned and confine
// sessions. They stay in force; nothing was touched.
type OtherBuildError struct {
	Dir      string
	Sessions int
}

func (e *OtherBuildError) Error() string {
	return fmt.Sprintf("another build of bailiffd left its programs in force (%s) and they confine %d sessions: "+
		"start that build again, or end them with `bailiffd --remove`", e.Dir, e.Sessions)
}

func pinAll(coll *ebpf.Collection, chosen programs, o Options, dir string) (err error) {
	making := filepath.Join(o.PinDir, newPrefix+filepath.Base(dir))
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("remove a half-made pin directory: %w", err)
	}
	links, err := attachAll(coll, chosen, o)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range links {
			l.Close()
		}
		if err != nil {
			os.RemoveAll(making)
		}
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
	for name, l := range links {
		if err := l.Pin(filepath.Join(making, "links", name)); err != nil {
			return fmt.Errorf("pin the link of %s: %w", name, err)
		}
	}
	for _, name := range chosen.demand {
		if err := coll.Programs[name].Pin(filepath.Join(making, "programs", name)); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	if err := os.Rename(making, dir); err != nil {
		return fmt.Errorf("put the pins in place: %w", err)
	}
	return nil
}

// pinName: bpffs keeps names with a dot for itself.
func pinName(name string) string { return strings.ReplaceAll(name, ".", "_") }

// adopt takes over what this build pinned earlier. It returns nil where there
// is nothing to adopt, having removed the pins of builds that confine nobody.
func adopt(o Options) (*Enforcer, error) {
	entries, err := os.ReadDir(o.PinDir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.PinDir, err)
	}
	own := false
	for _, entry := range entries {
		dir := filepath.Join(o.PinDir, entry.Name())
		if entry.Name() == Digest() {
			own = true
			continue
		}
		if n := pinnedSessions(dir); n > 0 {
			return nil, &OtherBuildError{Dir: dir, Sessions: n}
		}
		if err := removePins(dir); err != nil {
			return nil, err
		}
	}
	if !own {
		return nil, nil
	}
	return adoptOwn(o, filepath.Join(o.PinDir, Digest()))
}

func adoptOwn(o Options, dir string) (*Enforcer, error) {
	spec, err := loadEnforcer()
	if err != nil {
		return nil, fmt.Errorf("read the kernel object: %w", err)
	}
	chosen, err := choose(spec, o.Full)
	if err != nil {
		return nil, err
	}
	e := &Enforcer{maps: map[string]*ebpf.Map{}, full: o.Full, pins: dir, cgroup: o.Cgroup, adopted: true}
	for name := range spec.Maps {
		if e.maps[name], err = ebpf.LoadPinnedMap(filepath.Join(dir, "maps", pinName(name)), nil); err != nil {
			delete(e.maps, name)
			return nil, errors.Join(fmt.Errorf("adopt map %s: %w: run `bailiffd --remove` once no session runs", name, err), e.Close())
		}
	}
	for _, name := range append(chosen.lsm, chosen.cgroup...) {
		if _, err := os.Stat(filepath.Join(dir, "links", name)); err != nil {
			return nil, errors.Join(fmt.Errorf("adopt the link of %s: %w: run `bailiffd --remove` once no session runs", name, err), e.Close())
		}
	}
	if err := reattach(o, chosen.cgroup, dir); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if err := e.inherit(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// pinnedSessions counts the sessions that a pin directory's programs confine.
func pinnedSessions(dir string) int {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "maps", enforcerMapSessions), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0
	}
	defer m.Close()
	n := 0
	value := make([]byte, m.ValueSize())
	var key []byte
	for it := m.Iterate(); it.Next(&key, &value); {
		n++
	}
	return n
}

// Remove detaches and unpins everything below a pin directory, of every build.
// Sessions that still run are no longer confined; it says how many there were.
func Remove(pinDir string) (sessions int, err error) {
	entries, err := os.ReadDir(pinDir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", pinDir, err)
	}
	for _, entry := range entries {
		dir := filepath.Join(pinDir, entry.Name())
		sessions += pinnedSessions(dir)
		if err := removePins(dir); err != nil {
			return sessions, err
		}
	}
	return sessions, os.Remove(pinDir)
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
