// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"
)

// trie holds the patterns of all path rules, merged by common beginnings. Its
// nodes are the places of a nondeterministic automaton over components.
type trie struct {
	nodes []trieNode
	rules []pathRule
	globs *globBuilder
}

// The roots: of paths, and of the names of abstract sockets, which no wildcard
// of a path reaches.
const (
	pathRoot     = int32(0)
	abstractRoot = int32(1)
)

type trieNode struct {
	literals []literalChild // sorted by name
	globs    []globChild
	any      int32   // child on any one component; 0: none
	deep     int32   // child for "**"; 0: none
	isDeep   bool    // stays on any component
	file     bool    // a file line ends here
	rules    []int32 // rules whose pattern ends here, ascending
	beyond   Access  // rights that rules ending further on are about
}

type literalChild struct {
	name string
	node int32
}

type globChild struct {
	glob int32
	node int32
}

// newTrie builds the trie. Patterns are inserted in order, so that each node's
// children come out sorted and an insertion looks only at the last one.
func newTrie(rules []pathRule) *trie {
	t := &trie{nodes: make([]trieNode, 2), rules: rules, globs: newGlobBuilder()}
	order := make([]int32, len(rules))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		return comparePatterns(&rules[a].pattern, &rules[b].pattern)
	})
	for _, i := range order {
		t.insert(i)
	}
	t.lookAhead()
	return t
}

func comparePatterns(a, b *pattern) int {
	if a.abstract != b.abstract {
		if a.abstract {
			return 1
		}
		return -1
	}
	return slices.CompareFunc(a.components, b.components, func(x, y component) int {
		return cmp.Or(cmp.Compare(x.kind, y.kind), strings.Compare(x.text, y.text))
	})
}

func (t *trie) insert(rule int32) {
	p := &t.rules[rule].pattern
	at := pathRoot
	if p.abstract {
		at = abstractRoot
	}
	for _, c := range p.components {
		at = t.child(at, c)
	}
	t.nodes[at].rules = append(t.nodes[at].rules, rule)
	t.nodes[at].file = t.nodes[at].file || p.file
}

// child returns the child of a node for a component, which is the last one or new.
func (t *trie) child(at int32, c component) int32 {
	n := &t.nodes[at]
	switch c.kind {
	case literal:
		if k := len(n.literals); k > 0 && n.literals[k-1].name == c.text {
			return n.literals[k-1].node
		}
		n.literals = append(n.literals, literalChild{c.text, t.next()})
	case glob:
		g := t.globs.intern(c.text)
		for _, child := range n.globs {
			if child.glob == g {
				return child.node
			}
		}
		n.globs = append(n.globs, globChild{g, t.next()})
	case anyName:
		if n.any != 0 {
			return n.any
		}
		n.any = t.next()
	case anyDepth:
		if n.deep != 0 {
			return n.deep
		}
		n.deep = t.next()
	}
	t.nodes = append(t.nodes, trieNode{isDeep: c.kind == anyDepth})
	return t.next() - 1
}

// next is the number that the next new node gets.
func (t *trie) next() int32 { return int32(len(t.nodes)) }

// lookAhead fills in beyond. Children have greater numbers than their parents.
func (t *trie) lookAhead() {
	for i := len(t.nodes) - 1; i >= 0; i-- {
		n := &t.nodes[i]
		for _, c := range n.literals {
			n.beyond |= t.rights(c.node)
		}
		for _, c := range n.globs {
			n.beyond |= t.rights(c.node)
		}
		if n.any != 0 {
			n.beyond |= t.rights(n.any)
		}
		if n.deep != 0 {
			n.beyond |= t.rights(n.deep)
		}
	}
}

// closes is no right: it keeps the places of file lines from being left out, since
// they decide about what is below them.
const closes = Access(1) << 7

// rights are what the rules that end at a node or further on are about.
func (t *trie) rights(n int32) Access {
	access := t.nodes[n].beyond
	if t.nodes[n].file {
		access |= closes
	}
	for _, r := range t.nodes[n].rules {
		access |= t.rules[r].access
	}
	return access
}

// enter adds a node to a set, and with it the "**" that may match nothing.
func (t *trie) enter(set []int32, n int32) []int32 {
	set = append(set, n)
	if deep := t.nodes[n].deep; deep != 0 {
		set = append(set, deep)
	}
	return set
}

// onAny adds what every node of a set reaches on any component.
func (t *trie) onAny(into, set []int32) []int32 {
	for _, n := range set {
		node := &t.nodes[n]
		if node.isDeep {
			into = append(into, n)
		}
		if node.any != 0 {
			into = t.enter(into, node.any)
		}
	}
	return into
}

// onGlobs adds what every node of a set reaches through globs that a test holds
// for.
func (t *trie) onGlobs(into, set []int32, test func(glob int32) bool) []int32 {
	for _, n := range set {
		for _, g := range t.nodes[n].globs {
			if test(g.glob) {
				into = t.enter(into, g.node)
			}
		}
	}
	return into
}

// onName adds what every node of a set reaches on a literal component.
func (t *trie) onName(into, set []int32, name string) []int32 {
	for _, n := range set {
		children := t.nodes[n].literals
		i, ok := slices.BinarySearchFunc(children, name, func(c literalChild, name string) int {
			return strings.Compare(c.name, name)
		})
		if ok {
			into = t.enter(into, children[i].node)
		}
	}
	return into
}
