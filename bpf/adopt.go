// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
)

// inherited is the subject, which no agent can have, of the rules that an
// earlier life of the daemon left in force. The first Apply replaces them.
const inherited = "\x00inherited"

// heritage is what the rules in force consist of. What else is in the maps is of a
// set that an earlier daemon was killed over: not yet in force, or no longer.
type heritage struct {
	agents    []enforcerAgent
	slot      uint64
	states    map[uint32]bool
	globs     map[uint32]bool
	nets      map[uint32]bool // numbers of address tables
	sets      map[uint32]bool // numbers of port sets
	edges     []enforcerEdge
	addresses []enforcerNetKey
	ports     []enforcerPortKey
	stale     loaded // what is not in force
}

// inherit finds out which numbers and entries the rules in force use, so that
// the first Apply writes beside them and then removes them, and removes all others.
func (e *Enforcer) inherit() error {
	h := &heritage{states: map[uint32]bool{}, globs: map[uint32]bool{}, nets: map[uint32]bool{}, sets: map[uint32]bool{}}
	g, err := e.globals()
	if err != nil {
		return err
	}
	h.slot = g.Generation & 1
	for _, step := range []func(*heritage) error{
		e.inheritAgents, e.inheritStates, e.inheritAddresses, e.inheritPorts, e.inheritHomes, e.dropStale,
	} {
		if err := step(h); err != nil {
			return err
		}
	}
	e.claim(h)
	return nil
}

func (e *Enforcer) inheritAgents(h *heritage) error {
	h.agents = make([]enforcerAgent, enforcerLimitsMAX_AGENTS)
	for number := range h.agents {
		a := &h.agents[number]
		if err := e.maps[enforcerMapAgents].Lookup(uint32(number), a); err != nil {
			return fmt.Errorf("read agent %d: %w", number, err)
		}
		if *a != (enforcerAgent{}) {
			e.strangers = append(e.strangers, uint32(number))
		}
		for _, table := range []uint32{a.NetOut[h.slot], a.NetIn[h.slot]} {
			if table != 0 {
				h.nets[table], h.nets[table+1] = true, true
			}
		}
	}
	return nil
}

// inheritStates follows the automata from the agents' starts.
func (e *Enforcer) inheritStates(h *heritage) error {
	next := map[uint32][]uint32{}
	var edges []enforcerEdge
	var key enforcerEdge
	var to uint32
	it := e.maps[enforcerMapEdges].Iterate()
	for it.Next(&key, &to) {
		edges = append(edges, key)
		next[key.State] = append(next[key.State], to)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the transitions in force: %w", err)
	}
	var open []uint32
	for i := range h.agents {
		open = append(open, h.agents[i].Start[h.slot])
	}
	for len(open) > 0 {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		if n == 0 || h.states[n] {
			continue
		}
		h.states[n] = true
		var s enforcerState
		if err := e.maps[enforcerMapStates].Lookup(n, &s); err != nil {
			return fmt.Errorf("read state %d: %w", n, err)
		}
		if err := e.inheritGlobs(h, s.Glob); err != nil {
			return err
		}
		open = append(append(open, s.Next), next[n]...)
	}
	for _, edge := range edges {
		if h.states[edge.State] {
			h.edges = append(h.edges, edge)
		} else {
			h.stale.edges = append(h.stale.edges, edge)
		}
	}
	return nil
}

func (e *Enforcer) inheritGlobs(h *heritage, start uint32) error {
	for open := []uint32{start}; len(open) > 0; {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		if n == 0 || h.globs[n] {
			continue
		}
		h.globs[n] = true
		var node enforcerGlobNode
		if err := e.maps[enforcerMapGlobs].Lookup(n, &node); err != nil {
			return fmt.Errorf("read glob node %d: %w", n, err)
		}
		open = append(open, node.Next[:]...)
	}
	return nil
}

func (e *Enforcer) inheritAddresses(h *heritage) error {
	var key enforcerNetKey
	var set uint32
	it := e.maps[enforcerMapAddresses].Iterate()
	for it.Next(&key, &set) {
		if h.nets[key.Table] {
			h.addresses, h.sets[set] = append(h.addresses, key), true
		} else {
			h.stale.addresses = append(h.stale.addresses, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the addresses in force: %w", err)
	}
	return nil
}

func (e *Enforcer) inheritPorts(h *heritage) error {
	var key enforcerPortKey
	var verdict enforcerPortValue
	it := e.maps[enforcerMapPorts].Iterate()
	for it.Next(&key, &verdict) {
		if h.sets[key.Set] {
			h.ports = append(h.ports, key)
		} else {
			h.stale.ports = append(h.stale.ports, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the port ranges in force: %w", err)
	}
	return nil
}

// inheritHomes notes of which file systems the kernel knows a mount, so that
// SetHomes forgets those that are gone.
func (e *Enforcer) inheritHomes(*heritage) error {
	var device uint32
	var home enforcerHome
	it := e.maps[enforcerMapHomes].Iterate()
	for it.Next(&device, &home) {
		e.homes[device] = nil
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the table of mounts: %w", err)
	}
	return nil
}

// dropStale takes out what is not in force. It would be in the way of new rules, and
// transitions of states whose numbers are given again would be theirs.
func (e *Enforcer) dropStale(h *heritage) error {
	s := &h.stale
	if len(s.edges)+len(s.addresses)+len(s.ports) == 0 {
		return nil
	}
	if err := waitForPrograms(); err != nil { // that began under the set before
		return err
	}
	return e.unput(s)
}

// claim takes the numbers of inherited rules from the allocator: a ruleset for each
// run of them, since nobody knows any more which belonged together.
func (e *Enforcer) claim(h *heritage) {
	r := &e.rules
	r.edges.used = uint32(len(h.edges))
	r.addresses.used = uint32(len(h.addresses))
	r.ports.used = uint32(len(h.ports))
	e.active[inherited] = &loaded{edges: h.edges, addresses: h.addresses, ports: h.ports}
	for _, c := range []struct {
		of   *ranges
		used map[uint32]bool
		to   func(*loaded) *span
	}{
		{&r.states, h.states, func(l *loaded) *span { return &l.states }},
		{&r.globs, h.globs, func(l *loaded) *span { return &l.globs }},
		{&r.nets, h.nets, func(l *loaded) *span { return &l.nets }},
		{&r.portSets, h.sets, func(l *loaded) *span { return &l.portSets }},
	} {
		for _, run := range c.of.claim(slices.Sorted(maps.Keys(c.used))) {
			l := &loaded{}
			*c.to(l) = run
			e.active[inherited+" "+strconv.Itoa(len(e.active))] = l
		}
	}
}

// claim takes numbers, which are sorted, out of what is free, which is everything.
func (r *ranges) claim(used []uint32) (runs []span) {
	for _, n := range used {
		if last := len(runs) - 1; last >= 0 && runs[last].from+runs[last].n == n {
			runs[last].n++
		} else {
			runs = append(runs, span{n, 1})
		}
	}
	r.free = nil
	from := uint32(1)
	for _, run := range runs {
		if run.from > from {
			r.free = append(r.free, span{from, run.from - from})
		}
		from = run.from + run.n
	}
	if from <= r.max {
		r.free = append(r.free, span{from, r.max - from + 1})
	}
	return runs
}

// unput takes entries that nothing refers to out of the maps.
func (e *Enforcer) unput(l *loaded) error {
	var errs []error
	if len(l.edges) > 0 {
		errs = append(errs, deleteAll(e.maps[enforcerMapEdges], l.edges))
	}
	for i := range l.addresses {
		errs = append(errs, ignoreMissing(e.maps[enforcerMapAddresses].Delete(&l.addresses[i])))
	}
	for i := range l.ports {
		errs = append(errs, ignoreMissing(e.maps[enforcerMapPorts].Delete(&l.ports[i])))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove rules: %w", err)
	}
	return nil
}

// deleteAll deletes keys, some of which may not be there: a batch ends at the first
// that is not.
func deleteAll[K any](m *ebpf.Map, keys []K) error {
	for len(keys) > 0 {
		n, err := m.BatchDelete(keys, nil)
		if ignoreMissing(err) != nil {
			return err
		}
		if err == nil {
			return nil
		}
		keys = keys[min(n+1, len(keys)):]
	}
	return nil
}
