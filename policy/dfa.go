// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// verdictCell is what is decided about one right at a state: the kind of the
// decision and the rule that made it.
type verdictCell struct {
	rule RuleNumber
	kind cellKind
}

// cellKind orders decisions at the same depth: the greater wins.
type cellKind uint8

const (
	undecided cellKind = iota
	allowPattern
	denyPattern
	allowExact
	denyExact
	guardPattern
	guardExact
)

// verdicts is one cell for each right.
type verdicts [NumAccess]verdictCell

// stateKey is what makes a state: where in the patterns it is, and what is
// decided by the components read so far.
type stateKey struct {
	set      int32
	verdicts verdicts
}

// dfaBuilder makes the component automaton by subset construction.
type dfaBuilder struct {
	trie   *trie
	sets   [][]int32 // interned sets of trie nodes, without those that can't matter
	setIDs map[string]int32
	ids    map[stateKey]uint32
	keys   []stateKey // of each state
	out    Automaton
	one    []int32 // scratch: the nodes a transition leads to
	key    []byte  // scratch
}

// nothingBelow stands for the set of a state that is a file: whatever were below
// it is denied by default, and needs no transitions of its own.
const nothingBelow = int32(-1)

var (
	errTooManyStates = fmt.Errorf("more than %d states", MaxStates)
	errTooManyEdges  = fmt.Errorf("more than %d transitions", MaxEdges)
)

// buildAutomaton compiles path rules. The error is one of the errTooMany.
func buildAutomaton(rules []pathRule) (Automaton, error) {
	b := &dfaBuilder{
		trie:   newTrie(rules),
		setIDs: map[string]int32{},
		ids:    map[stateKey]uint32{},
	}
	if _, err := b.state(b.trie.enter(nil, pathRoot), verdicts{}); err != nil {
		return Automaton{}, err
	}
	for s := 0; s < len(b.keys); s++ {
		if err := b.expand(uint32(s)); err != nil {
			return Automaton{}, err
		}
		if len(b.out.Edges)+len(b.out.GlobEdges) > MaxEdges {
			return Automaton{}, errTooManyEdges
		}
	}
	b.out.Globs = b.trie.globs.nodes
	b.out.summarize()
	return b.out, nil
}

// state returns the state reached by matching up to a set of nodes (with
// repetitions, in any order), after a state with the verdicts before.
func (b *dfaBuilder) state(nodes []int32, before verdicts) (uint32, error) {
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	key := stateKey{verdicts: b.resolve(nodes, before)}
	closed := slices.ContainsFunc(nodes, func(n int32) bool { return b.trie.nodes[n].file })
	// Places from which nothing can be decided any more make no difference, and
	// leaving them out lets many states be one.
	open := ^stateOf(&key.verdicts).Guard
	nodes = slices.DeleteFunc(nodes, func(n int32) bool { return b.trie.nodes[n].beyond&open == 0 })
	key.set = b.intern(nodes)
	if closed {
		key.set = nothingBelow
	}
	if id, ok := b.ids[key]; ok {
		return id, nil
	}
	if len(b.keys) >= MaxStates {
		return 0, errTooManyStates
	}
	id := uint32(len(b.keys))
	b.ids[key] = id
	b.keys = append(b.keys, key)
	b.out.States = append(b.out.States, stateOf(&key.verdicts))
	return id, nil
}

func (b *dfaBuilder) intern(nodes []int32) int32 {
	b.key = b.key[:0]
	for _, n := range nodes {
		b.key = binary.LittleEndian.AppendUint32(b.key, uint32(n))
	}
	if id, ok := b.setIDs[string(b.key)]; ok {
		return id
	}
	id := int32(len(b.sets))
	b.setIDs[string(b.key)] = id
	b.sets = append(b.sets, slices.Clone(nodes))
	return id
}

// resolve applies the rules that match exactly up to here: for each right the
// strongest of them, the earliest among equals, replaces what was decided
// higher up. What a guardrail decided, nothing replaces.
func (b *dfaBuilder) resolve(nodes []int32, before verdicts) verdicts {
	var here verdicts
	for _, n := range nodes {
		for _, i := range b.trie.nodes[n].rules {
			r := &b.trie.rules[i]
			cell := verdictCell{r.number, r.cellKind()}
			for bit := range here {
				if r.access&(1<<bit) != 0 && cell.beats(here[bit]) {
					here[bit] = cell
				}
			}
		}
	}
	for bit := range here {
		if here[bit].kind == undecided || before[bit].kind >= guardPattern {
			here[bit] = before[bit]
		}
	}
	return here
}

func (c verdictCell) beats(other verdictCell) bool {
	return c.kind > other.kind || c.kind == other.kind && c.rule < other.rule
}

func (r *pathRule) cellKind() cellKind {
	switch {
	case r.guard && r.pattern.wild:
		return guardPattern
	case r.guard:
		return guardExact
	case r.pattern.wild && r.deny:
		return denyPattern
	case r.pattern.wild:
		return allowPattern
	case r.deny:
		return denyExact
	}
	return allowExact
}

func stateOf(v *verdicts) State {
	var s State
	for bit, c := range v {
		s.Rule[bit] = c.rule
		switch c.kind {
		case undecided:
		case allowPattern, allowExact:
			s.Allow |= 1 << bit
		case denyPattern, denyExact:
			s.Deny |= 1 << bit
		case guardPattern, guardExact:
			s.Deny |= 1 << bit
			s.Guard |= 1 << bit
		}
	}
	return s
}

// expand fills in the transitions of a state.
func (b *dfaBuilder) expand(s uint32) error {
	key := b.keys[s]
	if key.set == nothingBelow {
		to, err := b.state(nil, verdicts{})
		b.out.States[s].Default = to
		return err
	}
	set := b.sets[key.set]
	fallback, err := b.state(b.trie.onAny(b.one[:0], set), key.verdicts)
	if err != nil {
		return err
	}
	b.out.States[s].Default = fallback
	globs := b.globsOf(set)
	if len(globs) > 0 {
		if err := b.expandGlobs(s, set, globs); err != nil {
			return err
		}
	}
	if s == b.out.Start {
		// Abstract sockets are a world of their own: nothing decided about "/"
		// reaches them.
		to, err := b.state(append(b.one[:0], abstractRoot), verdicts{})
		if err != nil {
			return err
		}
		b.out.Edges = append(b.out.Edges, Edge{s, abstractName, to})
	}
	for _, name := range b.namesOf(set) {
		if err := b.expandName(s, set, name, len(globs) > 0); err != nil {
			return err
		}
	}
	return nil
}

// abstractName is the first component of an abstract socket's path.
const abstractName = "\x00"

func (b *dfaBuilder) expandName(s uint32, set []int32, name string, globs bool) error {
	next := b.trie.onName(b.trie.onAny(b.one[:0], set), set, name)
	if globs {
		next = b.trie.onGlobs(next, set, func(g int32) bool { return matchGlob(b.trie.globs.texts[g], name) })
	}
	b.one = next[:0]
	to, err := b.state(next, b.keys[s].verdicts)
	if err != nil {
		return err
	}
	if globs || to != b.out.States[s].Default {
		b.out.Edges = append(b.out.Edges, Edge{s, name, to})
	}
	return nil
}

func (b *dfaBuilder) expandGlobs(s uint32, set, globs []int32) error {
	start, err := b.trie.globs.start(globs)
	if err != nil {
		return err
	}
	b.out.States[s].Glob = start
	for _, class := range b.trie.globs.reachable(start) {
		members := b.trie.globs.classes[class]
		next := b.trie.onGlobs(b.trie.onAny(b.one[:0], set), set, func(g int32) bool {
			_, ok := slices.BinarySearch(members, g)
			return ok
		})
		to, err := b.state(next, b.keys[s].verdicts)
		if err != nil {
			return err
		}
		b.out.GlobEdges = append(b.out.GlobEdges, GlobEdge{s, class, to})
	}
	return nil
}

// globsOf returns the globs that leave a set, sorted.
func (b *dfaBuilder) globsOf(set []int32) []int32 {
	var globs []int32
	for _, n := range set {
		for _, g := range b.trie.nodes[n].globs {
			globs = append(globs, g.glob)
		}
	}
	slices.Sort(globs)
	return slices.Compact(globs)
}

// namesOf returns the literal components that leave a set, sorted.
func (b *dfaBuilder) namesOf(set []int32) []string {
	var names []string
	for _, n := range set {
		for _, c := range b.trie.nodes[n].literals {
			names = append(names, c.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
