// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"bailiff.dev/bailiff/policy"
)

// loaded is a ruleset that is in the maps.
type loaded struct {
	digest    [32]byte
	states    span
	globs     span
	nets      span // netTables numbers
	portSets  span
	edges     []enforcerEdge
	addresses []enforcerNetKey
	ports     []enforcerPortKey
	self      uint32
	flags     uint32
	// mask of those that are not denied
	capabilities uint64
}

// put writes a ruleset's tables under numbers that nothing refers to yet. On an
// error nothing stays.
func (e *Enforcer) put(r *policy.Ruleset) (l *loaded, err error) {
	l = &loaded{digest: r.Digest, self: uint32(r.Self), capabilities: uint64(r.Capabilities)}
	if r.Audit {
		l.flags |= uint32(enforcerAgentFlagAGENT_AUDIT)
	}
	if r.Self != 0 {
		l.flags |= uint32(enforcerAgentFlagAGENT_SELF)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.drop(l))
			l = nil
		}
	}()
	if err := e.putStates(l, &r.Files); err != nil {
		return l, err
	}
	if err := e.putEdges(l, &r.Files); err != nil {
		return l, err
	}
	return l, e.putNet(l, &r.Net)
}

func (e *Enforcer) putStates(l *loaded, a *policy.Automaton) (err error) {
	if l.states, err = e.rules.states.take(uint32(len(a.States))); err != nil {
		return err
	}
	if l.globs, err = e.rules.globs.take(uint32(len(a.Globs))); err != nil {
		return err
	}
	values := make([]enforcerState, len(a.States))
	guards := reachableGuards(a)
	for i := range a.States {
		s := &a.States[i]
		v := &values[i]
		*v = enforcerState{
			Next:  l.states.from + s.Default,
			Allow: uint8(s.Allow), Deny: uint8(s.Deny), Guard: uint8(s.Guard),
			Any: uint8(s.Any), All: uint8(s.All), AnyGuard: uint8(guards[i]),
		}
		if s.Glob != 0 {
			v.Glob = l.globs.from + uint32(s.Glob)
		}
		for bit, rule := range s.Rule {
			v.Rule[bit] = uint32(rule)
		}
		if s.Guard != 0 {
			l.flags |= uint32(enforcerAgentFlagAGENT_GUARDED)
		}
	}
	for _, edge := range a.Edges {
		values[edge.From].Flags |= uint8(enforcerStateFlagSTATE_EDGES)
		values[edge.From].Lengths |= 1 << (len(edge.Name) & 63)
	}
	if err := putArray(e.maps[enforcerMapStates], l.states, values); err != nil {
		return err
	}
	nodes := make([]enforcerGlobNode, len(a.Globs))
	for i := range a.Globs {
		nodes[i].Class = uint32(a.Globs[i].Class)
		for b, next := range a.Globs[i].Next {
			if next != 0 {
				nodes[i].Next[b] = l.globs.from + uint32(next)
			}
		}
	}
	return putArray(e.maps[enforcerMapGlobs], l.globs, nodes)
}

// reachableGuards returns, for each state, the union of Guard over the states
// that can be reached from it, itself among them.
func reachableGuards(a *policy.Automaton) []policy.Access {
	guards := make([]policy.Access, len(a.States))
	var changed []uint32
	for i := range a.States {
		if guards[i] = a.States[i].Guard; guards[i] != 0 {
			changed = append(changed, uint32(i))
		}
	}
	if len(changed) == 0 {
		return guards
	}
	before := make([][]uint32, len(a.States))
	for i := range a.States {
		before[a.States[i].Default] = append(before[a.States[i].Default], uint32(i))
	}
	for i := range a.Edges {
		before[a.Edges[i].To] = append(before[a.Edges[i].To], a.Edges[i].From)
	}
	for i := range a.GlobEdges {
		before[a.GlobEdges[i].To] = append(before[a.GlobEdges[i].To], a.GlobEdges[i].From)
	}
	for len(changed) > 0 {
		at := changed[len(changed)-1]
		changed = changed[:len(changed)-1]
		for _, from := range before[at] {
			if more := guards[from] | guards[at]; more != guards[from] {
				guards[from] = more
				changed = append(changed, from)
			}
		}
	}
	return guards
}

func putArray[V any](m *ebpf.Map, at span, values []V) error {
	if len(values) == 0 {
		return nil
	}
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = at.from + uint32(i)
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("write %s: %w", m, err)
	}
	return nil
}

func (e *Enforcer) putEdges(l *loaded, a *policy.Automaton) error {
	n := len(a.Edges) + len(a.GlobEdges)
	if err := e.rules.edges.take(uint32(n)); err != nil {
		return err
	}
	keys, values := make([]enforcerEdge, 0, n), make([]uint32, 0, n)
	for i := range a.Edges {
		edge := &a.Edges[i]
		keys = append(keys, enforcerEdge{Hash: e.key.sum(edge.Name), State: l.states.from + edge.From})
		values = append(values, l.states.from+edge.To)
	}
	for _, edge := range a.GlobEdges {
		keys = append(keys, enforcerEdge{State: l.states.from + edge.From, Class: uint32(edge.Class)})
		values = append(values, l.states.from+edge.To)
	}
	l.edges = keys
	if n == 0 {
		return nil
	}
	if _, err := e.maps[enforcerMapEdges].BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("write transitions: %w", err)
	}
	return nil
}

func (e *Enforcer) putNet(l *loaded, t *policy.NetTable) (err error) {
	if l.nets, err = e.rules.nets.take(netTables); err != nil {
		return err
	}
	if l.portSets, err = e.rules.portSets.take(uint32(len(t.PortSets))); err != nil {
		return err
	}
	var values []enforcerPortValue
	for i, set := range t.PortSets {
		for _, r := range set {
			value := enforcerPortValue{Rule: uint32(r.Rule), Allow: flag(r.Allow), Guard: flag(r.Guard)}
			for _, p := range portPrefixes(r.Low, r.High) {
				l.ports = append(l.ports, enforcerPortKey{
					Prefixlen: 32 + 16 + uint32(p.bits), Set: l.portSets.from + uint32(i),
					Protocol: uint8(r.Transport), Port: bigEndian(p.port),
				})
				values = append(values, value)
			}
		}
	}
	if err := e.rules.ports.take(uint32(len(values))); err != nil {
		l.ports = nil
		return err
	}
	for i := range l.ports {
		if err := e.maps[enforcerMapPorts].Update(&l.ports[i], &values[i], ebpf.UpdateNoExist); err != nil {
			return fmt.Errorf("write port ranges: %w", err)
		}
	}
	if err := e.rules.addresses.take(uint32(len(t.Prefixes))); err != nil {
		return err
	}
	for _, p := range t.Prefixes {
		key := netKey(l.table(p.Direction), p.Prefix)
		l.addresses = append(l.addresses, key)
		if err := e.maps[enforcerMapAddresses].Update(&key, l.portSets.from+uint32(p.Ports), ebpf.UpdateNoExist); err != nil {
			return fmt.Errorf("write address %s: %w", p.Prefix, err)
		}
	}
	return nil
}

// netTables is the number of address tables of a ruleset: for each direction one
// of IPv4, and after it one of IPv6.
const netTables = 4

// table returns the number of a direction's IPv4 table.
func (l *loaded) table(d policy.Direction) uint32 { return l.nets.from + 2*uint32(d) }

// netKey: the trie holds 16 bytes; IPv4 is mapped into them. It has a table of
// its own, since ::/0 contains what is mapped, and a rule for it must not.
func netKey(table uint32, p netip.Prefix) enforcerNetKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	} else {
		table++
	}
	return enforcerNetKey{Prefixlen: 32 + uint32(bits), Table: table, Address: p.Addr().As16()}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// bigEndian returns a port as the kernel keeps it.
func bigEndian(port uint16) uint16 { return port<<8 | port>>8 }

// portPrefix is the ports that share the first bits of port.
type portPrefix struct {
	port uint16
	bits int
}

// portPrefixes covers low to high with the fewest prefixes: at most 30.
func portPrefixes(low, high uint16) []portPrefix {
	var prefixes []portPrefix
	for at := uint32(low); at <= uint32(high); {
		size, bits := uint32(1), 16
		for bits > 0 && at%(size*2) == 0 && at+size*2-1 <= uint32(high) {
			size, bits = size*2, bits-1
		}
		prefixes = append(prefixes, portPrefix{uint16(at), bits})
		at += size
	}
	return prefixes
}

// drop takes a ruleset that nothing refers to out of the maps.
func (e *Enforcer) drop(l *loaded) error {
	e.rules.edges.used -= uint32(len(l.edges))
	e.rules.addresses.used -= uint32(len(l.addresses))
	e.rules.ports.used -= uint32(len(l.ports))
	e.rules.states.give(l.states)
	e.rules.globs.give(l.globs)
	e.rules.nets.give(l.nets)
	e.rules.portSets.give(l.portSets)
	return e.unput(l)
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
