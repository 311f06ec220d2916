// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"slices"

	"bailiff.dev/bailiff/policy"
)

// What a kernel has to answer: for each right that an operation takes, the
// reference evaluator's decision at the name it takes it at, and for what gets a
// new name docs/ARCHITECTURE.md's rule that nothing under it may become wider.
// The operations' own tables are in differential_accesses_test.go.

// spot is a name that a right is asked for at, as the host has it.
type spot struct {
	path    []string
	hidden  []string // the file system's own route to it, where a bind mount hides that; nil: none
	outside bool     // under a root that is not the host's
}

// step is one thing that the kernel asks of the policy during an operation.
type step struct {
	at     spot
	rights policy.Access
	move   *move  // a rename, a link or an exchange
	device bool   // a device node, which no session may make
	done   func() // what happened to the tree once it was allowed
}

// move is where something goes, what is asked for there, and what it is.
type move struct {
	to        spot
	rights    policy.Access
	directory bool
	exchange  bool
}

// allows tells whether the policy lets a step pass, in audit mode by only recording it.
func (p *agentPolicies) allows(s step) bool {
	switch {
	case s.rights == 0 && s.move == nil && !s.device: // O_PATH
		return true
	case s.device:
		return p.set.Audit
	case s.at.outside:
		return p.set.Audit && !p.guardsFiles()
	case !p.grants(s.at, s.rights):
		return false
	case s.move == nil:
		return true
	}
	return p.grants(s.move.to, s.move.rights) && p.keeps(s.at, s.move)
}

// grants decides about rights at a name.
func (p *agentPolicies) grants(at spot, rights policy.Access) bool {
	missing, guarded := p.missing(at, rights)
	return missing == 0 || p.set.Audit && !guarded
}

// missing returns which of some rights are denied at a name, and whether by a
// guardrail. Where a bind mount hides the file system's own route, what is
// explicitly denied there is denied.
func (p *agentPolicies) missing(at spot, rights policy.Access) (missing policy.Access, guarded bool) {
	for right := policy.Access(1); right <= policy.Connect; right <<= 1 {
		if rights&right == 0 {
			continue
		}
		d := p.ref.File(at.path, right)
		if at.hidden != nil {
			if hidden := p.ref.File(at.hidden, right); hidden.Guard || d.Allow && hidden.Rule != 0 {
				d = hidden
			}
		}
		if !d.Allow {
			missing |= right
			guarded = guarded || d.Guard
		}
	}
	return missing, guarded
}

// keeps tells whether what moves can be used for no more under its new name. In
// audit mode only guardrails count.
func (p *agentPolicies) keeps(from spot, m *move) bool {
	if p.set.Audit {
		return p.keepsGuards(from, m.to, m.directory) && (!m.exchange || p.keepsGuards(m.to, from, true))
	}
	return p.keepsRights(from, m.to, m.directory) && (!m.exchange || p.keepsRights(m.to, from, true))
}

func (p *agentPolicies) keepsRights(from, to spot, directory bool) bool {
	if !directory {
		return p.usable(to.path)&^p.usable(from.path) == 0 &&
			(to.hidden == nil || p.deniedUses(from.hidden)&^p.deniedUses(to.hidden) == 0)
	}
	if to.hidden != nil && p.state(from.hidden) != p.state(to.hidden) {
		return false
	}
	old, next := p.state(from.path), p.state(to.path)
	return old == next || p.set.Files.States[next].Any&^p.set.Files.States[old].All == 0
}

// uses are the rights on an object, whatever its name.
const uses = policy.Read | policy.Write | policy.Execute | policy.Connect

func (p *agentPolicies) usable(path []string) (rights policy.Access) {
	return uses &^ first(p.missing(spot{path: path}, uses))
}

func first(rights policy.Access, _ bool) policy.Access { return rights }

// deniedUses returns what a line, and not only the default, denies.
func (p *agentPolicies) deniedUses(path []string) (rights policy.Access) {
	for _, right := range []policy.Access{policy.Read, policy.Write, policy.Execute, policy.Connect} {
		if d := p.ref.File(path, right); !d.Allow && d.Rule != 0 {
			rights |= right
		}
	}
	return rights
}

func (p *agentPolicies) keepsGuards(from, to spot, directory bool) bool {
	routes := [][2][]string{{from.path, to.path}}
	if to.hidden != nil {
		routes = append(routes, [2][]string{from.hidden, to.hidden})
	}
	for _, route := range routes {
		old, next := p.state(route[0]), p.state(route[1])
		guard, now := p.set.Files.States[old].Guard, p.set.Files.States[next].Guard
		if directory && old != next && p.guardsBelow(old) || !directory && uses&guard&^now != 0 {
			return false
		}
	}
	return true
}

func (p *agentPolicies) state(path []string) uint32 { return p.set.Files.Walk(path) }

// guardsFiles tells whether any guardrail speaks of files or Unix sockets.
func (p *agentPolicies) guardsFiles() bool {
	return slices.ContainsFunc(p.set.Files.States, func(s policy.State) bool { return s.Guard != 0 })
}

// guardsBelow tells whether a guardrail denies anything in a state or in one that it leads to.
func (p *agentPolicies) guardsBelow(state uint32) bool {
	a := &p.set.Files
	seen := map[uint32]bool{}
	for open := []uint32{state}; len(open) > 0; {
		s := open[len(open)-1]
		open = open[:len(open)-1]
		if seen[s] {
			continue
		}
		if seen[s] = true; a.States[s].Guard != 0 {
			return true
		}
		open = append(open, a.States[s].Default)
		for _, e := range a.Edges {
			if e.From == s {
				open = append(open, e.To)
			}
		}
		for _, e := range a.GlobEdges {
			if e.From == s {
				open = append(open, e.To)
			}
		}
	}
	return false
}

// widens looks, below the two names of a directory that moved, for something that
// the reference evaluator gives more rights under the new one. Nothing compiled is
// asked: it is the proof that the summaries in an automaton do what they are for.
func (p *agentPolicies) widens(g generator, from, to spot) (below []string, found bool) {
	const all = uses | policy.Create | policy.Delete
	for range 40 {
		below = below[:0:0]
		for range g.IntN(4) {
			below = append(below, g.name())
		}
		before, _ := p.missing(spot{path: slices.Concat(from.path, below)}, all)
		after, _ := p.missing(spot{path: slices.Concat(to.path, below)}, all)
		if before&^after != 0 {
			return below, true
		}
	}
	return nil, false
}
