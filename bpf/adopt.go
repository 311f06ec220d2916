// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
)

// inherited is the subject, which no agent can have, of the rules that an
// earlier life of the daemon left in force. The first Apply replaces them.
const inherited = "\x00inherited"

// inherit finds out which numbers and entries the rules in force use, so that
// the first Apply writes beside them and then removes them.
func (e *Enforcer) inherit() error {
	l := &loaded{}
	if err := e.inheritStates(l); err != nil {
		return err
	}
	var address enforcerNetKey
	var set, sets, nets uint32
	it := e.maps[enforcerMapAddresses].Iterate()
	for it.Next(&address, &set) {
		l.addresses = append(l.addresses, address)
		sets, nets = max(sets, set), max(nets, address.Table)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the addresses in force: %w", err)
	}
	var port enforcerPortKey
	var verdict enforcerPortValue
	it = e.maps[enforcerMapPorts].Iterate()
	for it.Next(&port, &verdict) {
		l.ports = append(l.ports, port)
		sets = max(sets, port.Set)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the port ranges in force: %w", err)
	}
	for number := range uint32(enforcerLimitsMAX_AGENTS) {
		var a enforcerAgent
		if err := e.maps[enforcerMapAgents].Lookup(number, &a); err != nil {
			return fmt.Errorf("read agent %d: %w", number, err)
		}
		if a != (enforcerAgent{}) {
			e.strangers = append(e.strangers, number)
		}
		nets = max(nets, a.NetIn[0]+1, a.NetIn[1]+1, a.NetOut[0]+1, a.NetOut[1]+1)
	}
	return e.claim(l, nets, sets)
}

// claim takes the numbers of inherited rules from the allocator.
func (e *Enforcer) claim(l *loaded, nets, sets uint32) (err error) {
	r := &e.rules
	for _, c := range []struct {
		of *ranges
		to *span
		n  uint32
	}{
		{&r.states, &l.states, l.states.n}, {&r.globs, &l.globs, l.globs.n},
		{&r.nets, &l.nets, nets}, {&r.portSets, &l.portSets, sets},
	} {
		if *c.to, err = c.of.take(c.n); err != nil {
			return err
		}
	}
	r.edges.used = uint32(len(l.edges))
	r.addresses.used = uint32(len(l.addresses))
	r.ports.used = uint32(len(l.ports))
	e.active[inherited] = l
	return nil
}

// inheritStates follows the automata from the agents' starts: l.states.n and
// l.globs.n become the highest numbers reached.
func (e *Enforcer) inheritStates(l *loaded) error {
	next := map[uint32][]uint32{}
	var key enforcerEdge
	var to uint32
	it := e.maps[enforcerMapEdges].Iterate()
	for it.Next(&key, &to) {
		l.edges = append(l.edges, key)
		next[key.State] = append(next[key.State], to)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the transitions in force: %w", err)
	}
	var open []uint32
	for number := range uint32(enforcerLimitsMAX_AGENTS) {
		var a enforcerAgent
		if err := e.maps[enforcerMapAgents].Lookup(number, &a); err != nil {
			return fmt.Errorf("read agent %d: %w", number, err)
		}
		open = append(open, a.Start[0], a.Start[1])
	}
	seen := map[uint32]bool{0: true}
	for len(open) > 0 {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		var s enforcerState
		if err := e.maps[enforcerMapStates].Lookup(n, &s); err != nil {
			return fmt.Errorf("read state %d: %w", n, err)
		}
		l.states.n = max(l.states.n, n)
		if s.Glob != 0 {
			if err := e.inheritGlobs(l, s.Glob); err != nil {
				return err
			}
		}
		open = append(append(open, s.Next), next[n]...)
	}
	return nil
}

func (e *Enforcer) inheritGlobs(l *loaded, node uint32) error {
	if node <= l.globs.n {
		return nil
	}
	l.globs.n = node
	var n enforcerGlobNode
	if err := e.maps[enforcerMapGlobs].Lookup(node, &n); err != nil && ignoreMissing(err) != nil {
		return fmt.Errorf("read glob node %d: %w", node, err)
	}
	for _, next := range n.Next {
		if next > l.globs.n {
			if err := e.inheritGlobs(l, next); err != nil {
				return err
			}
		}
	}
	return nil
}
