// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// fit is how this build's programs and the maps of what is in force go together.
type fit struct {
	maps    map[string]*ebpf.Map // by the object's names
	fixed   enforcerConstants
	differs []string          // why these programs can't run over those maps
	entries map[string]uint32 // capacities that are not the configured ones
	waiting int               // bytes of events that no daemon has read
}

// fit opens the maps of a build in force, and compares them with what spec asks
// for. Nothing is written. The maps are the caller's to close.
func (b *build) fit(spec *ebpf.CollectionSpec, o Options) (f *fit, err error) {
	f = &fit{maps: map[string]*ebpf.Map{}, entries: map[string]uint32{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	configurable := map[string]bool{}
	Sizes{}.each(func(name string, _ uint32) { configurable[name] = true })
	for name, want := range spec.Maps {
		if ownMap(name) {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(b.dir, "maps", pinName(name)), nil)
		if errors.Is(err, os.ErrNotExist) && !b.own(o) && !essential(name) {
			continue // made empty
		}
		if err != nil {
			return f, fmt.Errorf("open the map %s of the programs in force: %w: end the sessions with `bailiffd --remove`", name, err)
		}
		f.maps[name] = m
		f.compare(name, want, m, configurable[name])
	}
	if err := f.maps[fixedMap].Lookup(uint32(0), &f.fixed); err != nil {
		return f, fmt.Errorf("read the constants of the programs in force: %w", err)
	}
	if f.waiting, err = unread(f.maps[enforcerMapEvents]); err != nil {
		return f, err
	}
	f.compareFixed(o)
	return f, f.compareCgroup(b, o)
}

// ownMap tells whether each load has a map for itself: it holds constants.
func ownMap(name string) bool { return strings.HasPrefix(name, ".rodata") && name != fixedMap }

// essential tells whether sessions that run could not do without a map.
func essential(name string) bool {
	switch name {
	case bssMap, fixedMap, enforcerMapLabels, enforcerMapSessions, enforcerMapAgents, enforcerMapStates,
		enforcerMapEdges, enforcerMapGlobs, enforcerMapAddresses, enforcerMapPorts, enforcerMapSocks, enforcerMapEvents,
		enforcerMapGrants, enforcerMapGrantPaths, enforcerMapGrantNets, enforcerMapGranted, enforcerMapMappings,
		enforcerMapIpcObjects:
		return true
	}
	return false
}

func (f *fit) compare(name string, want *ebpf.MapSpec, m *ebpf.Map, configurable bool) {
	const mayMap = unix.BPF_F_MMAPABLE // set at load, where the kernel knows it
	differs := func(what string, has, wants any) {
		f.differs = append(f.differs, fmt.Sprintf("the %s of its map %s is %v, and here %v", what, name, has, wants))
	}
	if m.Type() != want.Type {
		differs("type", m.Type(), want.Type)
	}
	if m.KeySize() != want.KeySize && want.Type != ebpf.RingBuf {
		differs("key's size", m.KeySize(), want.KeySize)
	}
	if m.ValueSize() != want.ValueSize && want.Type != ebpf.RingBuf {
		differs("value's size", m.ValueSize(), want.ValueSize)
	}
	if m.Flags()&^mayMap != want.Flags&^mayMap {
		differs("set of flags", m.Flags()&^mayMap, want.Flags&^mayMap)
	}
	switch has := m.MaxEntries(); {
	case has == want.MaxEntries || m.Type() == ebpf.TaskStorage || m.Type() == ebpf.SkStorage || m.Type() == ebpf.InodeStorage:
	case configurable:
		f.entries[name] = has
	default:
		differs("capacity", has, want.MaxEntries)
	}
}

func (f *fit) compareFixed(o Options) {
	if (f.fixed.FullTier != 0) != o.Full {
		f.differs = append(f.differs, fmt.Sprintf("its tier is %s, and now it is %s", tierName(f.fixed.FullTier != 0), tierName(o.Full)))
	}
	if f.fixed.SessionLevel != o.Level {
		f.differs = append(f.differs, fmt.Sprintf("its sessions' cgroups are %d levels deep, and those below %s %d", f.fixed.SessionLevel, o.Cgroup, o.Level))
	}
}

func tierName(full bool) string {
	if full {
		return "full"
	}
	return "basic"
}

// compareCgroup finds out whether the sessions are below another cgroup than the
// configured one. One that somebody removed has no sessions.
func (f *fit) compareCgroup(b *build, o Options) error {
	links, err := filepath.Glob(filepath.Join(b.dir, "links", enforcerProgEgress))
	if err != nil || len(links) == 0 {
		return err
	}
	id, err := linkedCgroup(links[0])
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(o.Cgroup, &st); err != nil {
		return &os.PathError{Op: "stat", Path: o.Cgroup, Err: err}
	}
	if id != 0 && id != st.Ino && cgroupLives(o.Cgroup, id) {
		f.differs = append(f.differs, "its sessions' cgroups are not below "+o.Cgroup)
	}
	return nil
}

// linkedCgroup returns the id of the cgroup that a link is attached to; 0: it is gone.
func linkedCgroup(pin string) (uint64, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return 0, fmt.Errorf("open the link %s: %w", pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("look at the link %s: %w", pin, err)
	}
	if at := info.Cgroup(); at != nil {
		return at.CgroupId, nil
	}
	return 0, nil
}

// cgroupLives tells whether a cgroup with this id is there, in the hierarchy of a path.
func cgroupLives(path string, id uint64) bool {
	const kernfs = 0xfe // FILEID_KERNFS
	at, err := os.Open(path)
	if err != nil {
		return true
	}
	defer at.Close()
	handle := unix.NewFileHandle(kernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(at.Fd()), handle, unix.O_PATH)
	if errors.Is(err, unix.ESTALE) {
		return false
	}
	if err == nil {
		unix.Close(fd)
	}
	return true
}

func (f *fit) close() error {
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
