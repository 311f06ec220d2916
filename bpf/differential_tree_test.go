// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"slices"
	"strings"
)

// The tree of the differential test: what is where, as far as the test knows. It
// says which accesses a kernel without a policy would grant, so that whatever
// else it answers came of the policy.

type nodeKind uint8

const (
	directory nodeKind = iota
	regular
	socket
	symlink
	special // a fifo or a device node
)

type node struct {
	kind   nodeKind
	name   string
	parent *node // nil: the root of a tree, which stays where it is, or not in a tree
	below  map[string]*node
	target string // of a symbolic link, relative to its directory
	inode  *int   // one for all hard links of a file
}

func newNode(kind nodeKind) *node {
	return &node{kind: kind, below: map[string]*node{}, inode: new(int)}
}

// put gives a node its place; what was there is gone.
func (n *node) put(parent *node, name string) {
	if n.parent != nil && n.parent.below[n.name] == n {
		delete(n.parent.below, n.name)
	}
	if old := parent.below[name]; old != nil {
		old.parent = nil
	}
	n.parent, n.name = parent, name
	parent.below[name] = n
}

func (n *node) remove() {
	delete(n.parent.below, n.name)
	n.parent = nil
}

// exchange swaps the places of two nodes.
func exchange(a, b *node) {
	a.parent, b.parent, a.name, b.name = b.parent, a.parent, b.name, a.name
	a.parent.below[a.name], b.parent.below[b.name] = a, b
}

// path returns the names from the root of the tree, which has none, down.
func (n *node) path() []string {
	var path []string
	for ; n.parent != nil; n = n.parent {
		path = append(path, n.name)
	}
	slices.Reverse(path)
	return path
}

func (n *node) depth() int { return len(n.path()) }

// within tells whether a node is another or below it.
func (n *node) within(other *node) bool {
	for ; n != nil; n = n.parent {
		if n == other {
			return true
		}
	}
	return false
}

// all lists a node and all below it, always in the same order.
func (n *node) all() []*node {
	list := []*node{n}
	for _, name := range slices.Sorted(maps.Keys(n.below)) {
		list = append(list, n.below[name].all()...)
	}
	return list
}

// follow returns what a path that is relative to a directory leads to; nil: nothing.
func (n *node) follow(path string, hops int) *node {
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case n == nil || n.kind != directory || hops == 0:
			return nil
		case name == "..":
			n = n.parent // nil above the root: links that lead out of the tree lead nowhere
		default:
			n = n.below[name].resolve(hops - 1)
		}
	}
	return n
}

// resolve returns what a node stands for: itself, or what a symbolic link leads to.
func (n *node) resolve(hops int) *node {
	if n == nil || n.kind != symlink {
		return n
	}
	return n.parent.follow(n.target, hops)
}
