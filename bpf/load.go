// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Enforcer is the one owner of the kernel objects. Its methods may be called
// from several goroutines. Closing it lets go of them; what is pinned stays in
// force.
type Enforcer struct {
	maps     map[string]*ebpf.Map
	full     bool
	key      hashKey
	cacheKey [2]uint64
	pins     string // directory of the pins
	cgroup   string // parent of the sessions'

	mu     sync.Mutex // what follows, and every write to the rule maps
	rules  allocator
	active map[string]*loaded // by subject
	agents map[string]uint32  // numbers of agents by SPIFFE ID
	names  map[uint32]string  // the other way round
	// numbers of agents that the kernel does not know yet
	unwritten map[uint32]bool
	// numbers that agents had in an earlier life; they deny everything until
	// RestoreAgents names them
	strangers []uint32
	homes     map[uint32][]string
	grants    grants
	adopted   bool
}

// globals is the layout of the object's .bss: see maps.bpf.h.
type globals struct {
	Generation uint64
	FileGrants uint64
	HostRoot   uint64
	Turn       uint64
}

// Names of the maps behind the object's globals.
const (
	bssMap   = ".bss"
	fixedMap = ".rodata.fixed"
)

// Digest names a build of the kernel programs: pins are only adopted by the same.
func Digest() string {
	sum := sha256.Sum256(_EnforcerBytes)
	return hex.EncodeToString(sum[:8])
}

// Load puts the programs into the kernel, attaches and pins them; or adopts what
// the same build pinned in an earlier life. All of it happens, or none. An
// *OtherBuildError says that another build's programs hold sessions.
func Load(o Options) (*Enforcer, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the memory lock limit: %w", err)
	}
	if err := makePinDir(o.PinDir); err != nil {
		return nil, err
	}
	e, err := adopt(o)
	if err != nil || e != nil {
		return e, err
	}
	return load(o)
}

func load(o Options) (*Enforcer, error) {
	spec, err := loadEnforcer()
	if err != nil {
		return nil, fmt.Errorf("read the kernel object: %w", err)
	}
	chosen, err := choose(spec, o.Full)
	if err != nil {
		return nil, err
	}
	if err := configure(spec, o); err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the kernel programs: %w", err)
	}
	defer coll.Close()
	if code, err := coll.Programs[findRoot].Run(&ebpf.RunOptions{}); err != nil || code != 0 {
		return nil, fmt.Errorf("find the host's root directory: code %d: %w", code, err)
	}
	pins := filepath.Join(o.PinDir, Digest())
	if err := pinAll(coll, chosen, o, pins); err != nil {
		return nil, err
	}
	e := &Enforcer{maps: coll.Maps, full: o.Full, pins: pins, cgroup: o.Cgroup}
	coll.Maps = nil // e's now
	return e, e.start()
}

// configure sets capacities and the globals that are fixed for the programs' life.
func configure(spec *ebpf.CollectionSpec, o Options) error {
	o.Sizes.apply(func(name string, n uint32) { spec.Maps[name].MaxEntries = n })
	var random [5]uint64
	if err := binary.Read(rand.Reader, binary.NativeEndian, &random); err != nil {
		return fmt.Errorf("draw hash keys: %w", err)
	}
	fixed := enforcerConstants{
		Version: abiVersion, SessionLevel: o.Level, HashKey: [2]uint64(random[:2]), CacheKey: [2]uint64{random[2], random[3] | 1},
	}
	if o.Full {
		fixed.FullTier = 1
	}
	key := hashKey(fixed.HashKey)
	locks, err := kernelSymbols("rename_lock", "mount_lock")
	if err != nil {
		return err
	}
	values := map[string]any{
		"fixed":          fixed,
		"rename_lock_at": locks["rename_lock"],
		"mount_lock_at":  locks["mount_lock"],
		"self_hash":      key.sum("self"),
		"abstract_hash":  key.sum("\x00"),
		"own_turn":       random[4],
		"turn":           random[4],
	}
	if locks["rename_lock"] == 0 || locks["mount_lock"] == 0 {
		values["rename_lock_at"], values["mount_lock_at"] = uint64(0), uint64(0)
	}
	for name, value := range values {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("set %s: the kernel object has no such variable", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// start fills in what is known from the maps alone.
func (e *Enforcer) start() error {
	e.active, e.homes = map[string]*loaded{}, map[uint32][]string{}
	e.agents, e.names, e.unwritten = map[string]uint32{}, map[uint32]string{}, map[uint32]bool{}
	e.rules.init(e.maps)
	e.grants.init(e.maps)
	var fixed enforcerConstants
	if err := e.maps[fixedMap].Lookup(uint32(0), &fixed); err != nil {
		return fmt.Errorf("read the programs' constants: %w", err)
	}
	e.key, e.cacheKey = fixed.HashKey, fixed.CacheKey
	return nil
}

// Full tells whether the LSM programs are in force.
func (e *Enforcer) Full() bool { return e.full }

// Adopted tells whether the programs were found in force, rather than loaded.
func (e *Enforcer) Adopted() bool { return e.adopted }

// Close lets go of the kernel objects. Enforcement goes on: see Remove.
func (e *Enforcer) Close() error {
	var errs []error
	for _, m := range e.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// attachAll attaches the programs, cgroup programs first: they are harmless
// while there are no sessions. The links are closed if one fails.
func attachAll(coll *ebpf.Collection, chosen programs, o Options) (links map[string]link.Link, err error) {
	links = map[string]link.Link{}
	defer func() {
		if err != nil {
			for _, l := range links {
				l.Close()
			}
		}
	}()
	for _, name := range chosen.cgroup {
		p := coll.Programs[name]
		links[name], err = link.AttachCgroup(link.CgroupOptions{Path: o.Cgroup, Attach: attachType(name), Program: p})
		if err != nil {
			delete(links, name)
			return nil, fmt.Errorf("attach %s to %s: %w", name, o.Cgroup, err)
		}
	}
	for _, name := range chosen.lsm {
		links[name], err = link.AttachLSM(link.LSMOptions{Program: coll.Programs[name]})
		if err != nil {
			delete(links, name)
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	runtime.KeepAlive(coll)
	return links, nil
}

func attachType(program string) ebpf.AttachType {
	switch program {
	case enforcerProgConnect4:
		return ebpf.AttachCGroupInet4Connect
	case enforcerProgConnect6:
		return ebpf.AttachCGroupInet6Connect
	case enforcerProgSendmsg4:
		return ebpf.AttachCGroupUDP4Sendmsg
	case enforcerProgSendmsg6:
		return ebpf.AttachCGroupUDP6Sendmsg
	case enforcerProgBind4:
		return ebpf.AttachCGroupInet4Bind
	case enforcerProgBind6:
		return ebpf.AttachCGroupInet6Bind
	case enforcerProgEgress:
		return ebpf.AttachCGroupInetEgress
	case enforcerProgIngress:
		return ebpf.AttachCGroupInetIngress
	}
	return ebpf.AttachNone
}

// SupportsCgroup tells whether this kernel loads the basic tier's programs.
func SupportsCgroup() error {
	return errors.Join(
		features.HaveProgramType(ebpf.CGroupSockAddr),
		features.HaveProgramType(ebpf.CGroupSKB),
		features.HaveMapType(ebpf.RingBuf),
	)
}
