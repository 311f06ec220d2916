// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
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
	tell     Tell

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
	leaving   map[uint32]bool // numbers that ReleaseAgents took, until GiveAgain
	past      past
	homes     map[uint32][]string
	grants    grants
	adopted   bool
	before    *build   // whose programs these replaced; nil: none
	retiring  []string // directories of pins, see Retire
	notes     []string
}

// globals is the layout of the object's .bss: see maps.bpf.h.
type globals struct {
	Generation uint64
	FileGrants uint64
	TellRate   uint64
	TellBurst  uint64
	Parent     uint64
	HostRoot   uint64
	Turn       uint64
}

// Names of the maps behind the object's globals.
const (
	bssMap   = ".bss"
	fixedMap = ".rodata.fixed"
)

// Load puts the programs into the kernel, attaches and pins them; or adopts what
// the same build pinned in an earlier life; or, where another build's are in
// force, puts its own over the same maps, so that rules, labels and events go on.
// All of it happens, or none. An *OtherBuildError says that sessions are confined
// by programs that this build can't take over.
func Load(o Options) (*Enforcer, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the memory lock limit: %w", err)
	}
	if err := makePinDir(o.PinDir); err != nil {
		return nil, err
	}
	current, rest, err := survey(o)
	if err != nil {
		return nil, err
	}
	spec, err := loadEnforcer()
	if err != nil {
		return nil, fmt.Errorf("read the kernel object: %w", err)
	}
	chosen, err := choose(spec, o.Full)
	if err != nil {
		return nil, err
	}
	o.Sizes.each(func(name string, n uint32) {
		if n != 0 {
			spec.Maps[name].MaxEntries = n
		}
	})
	if current == nil {
		if err := removeAll(rest); err != nil {
			return nil, err
		}
		return load(o, spec, chosen, nil, nil)
	}
	f, err := current.fit(spec, o)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return succeed(o, spec, chosen, current, f, rest)
}

// load loads the programs: with maps of their own, or, in place of those of
// before, over its maps.
func load(o Options, spec *ebpf.CollectionSpec, chosen programs, before *build, f *fit) (*Enforcer, error) {
	fixed, err := fixedFor(o, f)
	if err != nil {
		return nil, err
	}
	turn, err := configure(spec, fixed)
	if err != nil {
		return nil, err
	}
	var options ebpf.CollectionOptions
	if f != nil {
		options.MapReplacements = f.maps
		for name, n := range f.entries {
			spec.Maps[name].MaxEntries = n
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, fmt.Errorf("load the kernel programs: %w", err)
	}
	defer coll.Close()
	if before == nil {
		if code, err := coll.Programs[findRoot].Run(&ebpf.RunOptions{}); err != nil || code != 0 {
			return nil, fmt.Errorf("find the host's root directory: code %d: %w", code, err)
		}
	}
	dir := pinsOf(o, turn)
	if err := pinAll(coll, chosen, o, dir, before); err != nil {
		return nil, err
	}
	e := &Enforcer{maps: coll.Maps, full: o.Full, pins: dir, cgroup: o.Cgroup, tell: o.Tell, before: before}
	coll.Maps = nil // e's now
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if before == nil {
		return e, e.labelStrangers()
	}
	e.retiring = []string{before.dir}
	if err := e.takeTurn(o, chosen, turn); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// start fills in what is known from the maps alone.
func (e *Enforcer) start() error {
	e.active, e.homes = map[string]*loaded{}, map[uint32][]string{}
	e.agents, e.names, e.unwritten = map[string]uint32{}, map[uint32]string{}, map[uint32]bool{}
	e.leaving, e.past = map[uint32]bool{}, newPast()
	e.rules.init(e.maps)
	e.grants.init(e.maps)
	var fixed enforcerConstants
	if err := e.maps[fixedMap].Lookup(uint32(0), &fixed); err != nil {
		return fmt.Errorf("read the programs' constants: %w", err)
	}
	e.key, e.cacheKey = fixed.HashKey, fixed.CacheKey
	return e.setGlobal()
}

// Full tells whether the LSM programs are in force.
func (e *Enforcer) Full() bool { return e.full }

// Adopted tells whether the programs were found in force, rather than loaded.
func (e *Enforcer) Adopted() bool { return e.adopted }

// Notes returns what whoever runs this host should know of how the programs came
// into force, a sentence each.
func (e *Enforcer) Notes() []string { return e.notes }

func (e *Enforcer) note(format string, values ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, values...))
}

// Replaced returns the directory of the pins that the programs were found in, and
// have taken over from; "" where they were not another build's.
func (e *Enforcer) Replaced() string {
	if e.before == nil {
		return ""
	}
	return e.before.dir
}

// Close lets go of the kernel objects. Enforcement goes on: see Remove.
func (e *Enforcer) Close() error {
	var errs []error
	for _, m := range e.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
