// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// succeed goes on from a build in force. Programs that an interrupted upgrade
// left attached go before more are attached: a hook has room for a few dozen.
func succeed(o Options, spec *ebpf.CollectionSpec, chosen programs, current *build, f *fit, rest []string) (*Enforcer, error) {
	if len(f.differs) > 0 && current.sessions > 0 {
		return nil, &OtherBuildError{Dir: current.dir, Sessions: current.sessions, Differs: f.differs}
	}
	own := current.own(o)
	if o.Ready != nil && !own {
		if err := o.Ready(); err != nil {
			return nil, err
		}
	}
	replace := len(f.differs) > 0 || len(f.entries) > 0 && current.sessions == 0 && f.waiting == 0
	adopting := own && !replace && complete(current.dir, chosen)
	if replace {
		rest = append(rest, current.dir)
	}
	if !adopting {
		if err := removeAll(rest); err != nil {
			return nil, err
		}
	}
	if replace {
		e, err := load(o, spec, chosen, nil, nil)
		if err == nil && f.waiting > 0 {
			e.note("%d bytes of events that no daemon had read are lost: another build's programs, which confined nobody, were replaced", f.waiting)
		}
		return e, err
	}
	e, err := (*Enforcer)(nil), error(nil)
	if adopting {
		e, err = adopt(o, spec, chosen, current, rest)
	} else {
		e, err = load(o, spec, chosen, current, f)
	}
	if err != nil {
		return nil, err
	}
	for name, has := range f.entries {
		e.note("the table %s keeps its capacity, %d, and not the configured one, as long as sessions run or events wait", name, has)
	}
	return e, nil
}

// takeTurn makes the programs of e, which are attached beside those before them,
// the ones in force. From the write of the globals on, another start goes on from
// them.
func (e *Enforcer) takeTurn(o Options, chosen programs, turn uint64) error {
	g, err := e.globals()
	if err != nil {
		return err
	}
	g.Turn = turn
	if err := e.setGlobals(g); err != nil {
		return err
	}
	if err := reattach(o, chosen.cgroup, e.pins); err != nil {
		return err
	}
	e.adopted = true
	return e.inherit()
}

// Retiring tells whether Retire has something to do.
func (e *Enforcer) Retiring() bool { return len(e.retiring) > 0 }

// Retire removes the programs that these have replaced, and what an interrupted
// upgrade left. They deny what these deny, and tell of nothing else; removing
// them takes the kernel seconds.
func (e *Enforcer) Retire() error {
	if err := removeAll(e.retiring); err != nil {
		return err
	}
	e.retiring = nil
	return nil
}

// complete tells whether all that was attached still is pinned.
func complete(dir string, chosen programs) bool {
	for _, name := range append(chosen.lsm, chosen.cgroup...) {
		if _, err := os.Stat(filepath.Join(dir, "links", name)); err != nil {
			return false
		}
	}
	return true
}

// adopt takes over what this build pinned earlier.
func adopt(o Options, spec *ebpf.CollectionSpec, chosen programs, current *build, rest []string) (*Enforcer, error) {
	e := &Enforcer{maps: map[string]*ebpf.Map{}, full: o.Full, pins: current.dir, cgroup: o.Cgroup, tell: o.Tell, adopted: true, retiring: rest}
	for name := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(current.dir, "maps", pinName(name)), nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("adopt map %s: %w: run `bailiffd --remove`, which ends the sessions", name, err), e.Close())
		}
		e.maps[name] = m
	}
	for _, step := range []func() error{
		func() error { return reattach(o, chosen.cgroup, current.dir) }, e.start, e.inherit,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}
