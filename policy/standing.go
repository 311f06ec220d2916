// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
)

// Standing is what a ruleset itself says of access that a grant is to give. A
// grant opens only what no line speaks of.
type Standing struct {
	Denied  *Rule // denies all of one right or port that is asked for; nil: nothing does
	Allowed bool  // all of it is allowed without the grant
	Within  *Rule // denies a part of what is asked for, or something below it; the first of several; nil: nothing does
}

// StandingFile looks rights on a path and everything below it up. The path is
// given as components from the root down, as an Automaton takes it.
func (r *Ruleset) StandingFile(components []string, access Access) Standing {
	at := r.Files.Walk(components)
	state := &r.Files.States[at]
	s := Standing{
		Denied:  r.denying(state, access),
		Allowed: access != 0 && access&^state.All == 0,
	}
	if s.Denied == nil {
		s.Within = r.denyingBelow(at, access)
	}
	return s
}

// denying returns the first rule that denies one of some rights in a state.
func (r *Ruleset) denying(s *State, access Access) *Rule {
	for bit := range NumAccess {
		if s.Deny&access&(1<<bit) != 0 {
			return &r.Rules[s.Rule[bit]]
		}
	}
	return nil
}

// denyingBelow is the same for the states that can be reached from one.
func (r *Ruleset) denyingBelow(from uint32, access Access) *Rule {
	a := &r.Files
	seen := make([]bool, len(a.States))
	seen[from] = true
	for queue := []uint32{from}; len(queue) > 0; queue = queue[1:] {
		if rule := r.denying(&a.States[queue[0]], access); rule != nil {
			return rule
		}
		for _, next := range a.next(queue[0]) {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// next returns the states that one component leads to from a state below "/".
func (a *Automaton) next(from uint32) []uint32 {
	next := []uint32{a.States[from].Default}
	i, _ := slices.BinarySearchFunc(a.Edges, from, func(e Edge, s uint32) int { return compareEdge(e.From, s, "", "") })
	for ; i < len(a.Edges) && a.Edges[i].From == from; i++ {
		if a.Edges[i].Name != abstractName {
			next = append(next, a.Edges[i].To)
		}
	}
	i, _ = slices.BinarySearchFunc(a.GlobEdges, from, func(e GlobEdge, s uint32) int { return compareEdge(e.From, s, "", "") })
	for ; i < len(a.GlobEdges) && a.GlobEdges[i].From == from; i++ {
		next = append(next, a.GlobEdges[i].To)
	}
	return next
}

// StandingNet looks connecting to the addresses of a prefix up, at ports. An
// IPv4-mapped prefix counts as IPv6, which nothing is allowed for.
func (r *Ruleset) StandingNet(prefix netip.Prefix, ports PortSpan, transport Transport) Standing {
	var around *NetPrefix // the longest that holds all of it
	within := []*NetPrefix{}
	for i := range r.Net.Prefixes {
		p := &r.Net.Prefixes[i]
		switch {
		case p.Direction != Outbound:
		case p.Prefix.Bits() <= prefix.Bits() && p.Prefix.Contains(prefix.Addr()):
			if around == nil || p.Prefix.Bits() > around.Prefix.Bits() {
				around = p
			}
		case prefix.Contains(p.Prefix.Addr()):
			within = append(within, p)
		}
	}
	if around == nil {
		around = &NetPrefix{Ports: -1}
	}
	denied, allowed, rule := r.Net.weigh(around, ports, transport)
	size := int(ports.High) - int(ports.Low) + 1
	s := Standing{Allowed: allowed == size}
	if denied == size {
		return Standing{Denied: &r.Rules[rule]}
	}
	for _, p := range within {
		_, n, more := r.Net.weigh(p, ports, transport)
		s.Allowed = s.Allowed && n == size
		if rule == 0 {
			rule = more
		}
	}
	if rule != 0 {
		s.Within = &r.Rules[rule]
	}
	return s
}

// weigh counts how many of some ports a prefix denies by a rule, and allows, and
// returns the first rule that denies.
func (t *NetTable) weigh(p *NetPrefix, ports PortSpan, transport Transport) (denied, allowed int, rule RuleNumber) {
	if p.Ports < 0 {
		return 0, 0, 0
	}
	for _, r := range t.PortSets[p.Ports] {
		n := int(min(r.High, ports.High)) - int(max(r.Low, ports.Low)) + 1
		switch {
		case r.Transport != transport || n <= 0:
		case r.Allow:
			allowed += n
		default:
			if denied += n; rule == 0 {
				rule = r.Rule
			}
		}
	}
	return denied, allowed, rule
}
