// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Reference decides straight from documents, by the words of the package
// comment and without anything compiled. It is slow, and there to be compared
// with: the compiled ruleset, and a kernel that runs it, must agree with it.
type Reference struct {
	rules *ruleList
}

// Decision is what was decided and by which rule.
type Decision struct {
	Allow bool
	Guard bool       // denied by a Guardrail
	Right Access     // of a path: the right it is about, one bit
	Rule  RuleNumber // as in the compiled Ruleset of the same documents; 0: the default deny
}

// NewReference prepares the documents about an agent, which is named as for
// Compile. It fails where no policy is about the agent.
func NewReference(agent string, docs []Document) (*Reference, error) {
	l := collect(agent, docs)
	if l.policies == 0 {
		return nil, fmt.Errorf("evaluate policy: no AgentPolicy is about %q", agent)
	}
	return &Reference{l}, nil
}

// Rule returns the rule of a number.
func (e *Reference) Rule(n RuleNumber) Rule { return e.rules.rules[n] }

// File decides about one right (one bit) on a path, or on a Unix socket, given
// as components from the root down, as an Automaton takes them.
func (e *Reference) File(components []string, right Access) Decision {
	var best *pathRule
	bestDepth := -1
	for i := range e.rules.files {
		r := &e.rules.files[i]
		if r.pattern.file && r.pattern.above(components) {
			return Decision{Right: right} // nothing is below a file
		}
		if r.access&right == 0 {
			continue
		}
		depth := r.pattern.depth(components, r.guard)
		if depth >= 0 && (best == nil || r.outranks(depth, best, bestDepth)) {
			best, bestDepth = r, depth
		}
	}
	if best == nil {
		return Decision{Right: right}
	}
	return Decision{Allow: !best.deny, Guard: best.guard, Right: right, Rule: best.number}
}

// outranks reports whether a rule that matched depth components wins over
// another: a guardrail's first, and of two the one that matched higher up; else
// the deeper, then the one without wildcards, then a deny, then the earlier.
func (r *pathRule) outranks(depth int, other *pathRule, otherDepth int) bool {
	switch {
	case r.guard != other.guard:
		return r.guard
	case depth != otherDepth:
		return depth > otherDepth != r.guard
	case r.pattern.wild != other.pattern.wild:
		return other.pattern.wild
	case r.deny != other.deny:
		return r.deny
	}
	return r.number < other.number
}

// depth returns the length of the longest beginning of a path that a pattern
// matches, or of the shortest, or -1: a rule covers what it names and everything
// below.
func (p *pattern) depth(components []string, shortest bool) int {
	if (len(components) > 0 && components[0] == abstractName) != p.abstract {
		return -1
	}
	offset := 0
	if p.abstract {
		components, offset = components[1:], 1
	}
	depth := -1
	for n := len(components); n >= 0 && (depth < 0 || shortest); n-- {
		if matchComponents(p.components, components[:n]) {
			depth = n + offset
		}
	}
	return depth
}

// above reports whether a pattern matches a directory above a path.
func (p *pattern) above(components []string) bool {
	return len(components) > 0 && p.depth(components[:len(components)-1], true) >= 0
}

func matchComponents(pattern []component, path []string) bool {
	if len(pattern) == 0 {
		return len(path) == 0
	}
	if pattern[0].kind == anyDepth {
		return matchComponents(pattern[1:], path) || len(path) > 0 && matchComponents(pattern, path[1:])
	}
	return len(path) > 0 && pattern[0].matches(path[0]) && matchComponents(pattern[1:], path[1:])
}

// matches reports whether a component other than "**" matches a name.
func (c component) matches(name string) bool {
	switch c.kind {
	case literal:
		return c.text == name
	case glob:
		return matchGlob(c.text, name)
	}
	return true
}

// Net decides about an address and port. An IPv4-mapped address counts as IPv4.
func (e *Reference) Net(direction Direction, addr netip.Addr, port uint16, transport Transport) Decision {
	addr = addr.Unmap().WithZone("")
	var best *netRule
	bestBits := -1
	for i := range e.rules.network {
		r := &e.rules.network[i]
		if bits := r.bits(direction, addr, port, transport); bits >= 0 && (best == nil || r.outranks(bits, best, bestBits)) {
			best, bestBits = r, bits
		}
	}
	if best == nil {
		return Decision{}
	}
	return Decision{Allow: !best.deny, Guard: best.guard, Rule: best.number}
}

// bits returns the length of the longest prefix by which a rule covers an
// address, or -1.
func (r *netRule) bits(direction Direction, addr netip.Addr, port uint16, transport Transport) int {
	inPorts := func(s PortSpan) bool { return s.Low <= port && port <= s.High }
	if r.direction != direction || !slices.Contains(r.transports, transport) || !slices.ContainsFunc(r.ports, inPorts) {
		return -1
	}
	bits := -1
	for _, p := range r.prefixes {
		if p.Contains(addr) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

// outranks is as for path rules; a built-in rule gives way to others that name
// the same address.
func (r *netRule) outranks(bits int, other *netRule, otherBits int) bool {
	switch {
	case r.guard != other.guard:
		return r.guard
	case bits != otherBits:
		return bits > otherBits
	case r.builtin != other.builtin:
		return other.builtin
	case r.deny != other.deny:
		return r.deny
	}
	return r.number < other.number
}
