// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
)

var errTooManyNodes = fmt.Errorf("wildcards need more than %d nodes", MaxGlobNodes)

// compilable reports whether each glob of a pattern compiles on its own.
func (p pattern) compilable() error {
	for _, c := range p.components {
		if c.kind != glob {
			continue
		}
		b := newGlobBuilder()
		if _, err := b.start([]int32{b.intern(c.text)}); err != nil {
			return fmt.Errorf("the wildcards in %q make too many combinations: use fewer of them in one component", c.text)
		}
	}
	return nil
}

// globBuilder makes the byte automaton by subset construction. A node stands for
// a set of places in globs; nodes and classes are shared by all states of the
// component automaton.
type globBuilder struct {
	texts   []string
	ids     map[string]int32
	tokens  [][]globToken
	nodes   []GlobNode
	sets    [][]globPlace // of each node
	byKey   map[string]uint16
	classes [][]int32 // the globs of each class; class 0 is none
	byGlobs map[string]uint16
	reach   map[uint16][]uint16 // classes reachable from a start node
}

type globToken struct {
	star, any bool
	b         byte
}

// globPlace is a place before token pos of a glob, or at its end.
type globPlace struct {
	glob int32
	pos  int32
}

func newGlobBuilder() *globBuilder {
	return &globBuilder{
		ids:     map[string]int32{},
		nodes:   make([]GlobNode, 1),
		sets:    make([][]globPlace, 1),
		byKey:   map[string]uint16{"": 0},
		classes: make([][]int32, 1),
		byGlobs: map[string]uint16{"": 0},
		reach:   map[uint16][]uint16{},
	}
}

// intern returns the number of a glob.
func (b *globBuilder) intern(text string) int32 {
	if id, ok := b.ids[text]; ok {
		return id
	}
	id := int32(len(b.texts))
	b.ids[text] = id
	b.texts = append(b.texts, text)
	b.tokens = append(b.tokens, tokenize(text))
	return id
}

func tokenize(text string) []globToken {
	var tokens []globToken
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '*':
			tokens = append(tokens, globToken{star: true})
		case '?':
			tokens = append(tokens, globToken{any: true})
		case '\\':
			i++
			tokens = append(tokens, globToken{b: text[i]})
		default:
			tokens = append(tokens, globToken{b: c})
		}
	}
	return tokens
}

// start returns the node to start at for a sorted set of globs, building what is
// missing.
func (b *globBuilder) start(globs []int32) (uint16, error) {
	var set []globPlace
	for _, g := range globs {
		set = b.place(set, globPlace{g, 0})
	}
	first := len(b.nodes)
	start, err := b.node(set)
	for n := first; err == nil && n < len(b.nodes); n++ {
		err = b.expand(n)
	}
	return start, err
}

// place adds a place to a set, with those that a "*" lets it reach at once.
func (b *globBuilder) place(set []globPlace, p globPlace) []globPlace {
	set = append(set, p)
	for tokens := b.tokens[p.glob]; int(p.pos) < len(tokens) && tokens[p.pos].star; {
		p.pos++
		set = append(set, p)
	}
	return set
}

// node returns the node of a set of places, adding it if it is new.
func (b *globBuilder) node(set []globPlace) (uint16, error) {
	slices.SortFunc(set, func(x, y globPlace) int {
		if x.glob != y.glob {
			return int(x.glob - y.glob)
		}
		return int(x.pos - y.pos)
	})
	set = slices.Compact(set)
	var key []byte
	var full []int32
	for _, p := range set {
		key = strconv.AppendInt(key, int64(p.glob), 36)
		key = append(key, '.')
		key = strconv.AppendInt(key, int64(p.pos), 36)
		key = append(key, ' ')
		if int(p.pos) == len(b.tokens[p.glob]) {
			full = append(full, p.glob)
		}
	}
	if n, ok := b.byKey[string(key)]; ok {
		return n, nil
	}
	if len(b.nodes) >= MaxGlobNodes {
		return 0, errTooManyNodes
	}
	class, err := b.class(full)
	if err != nil {
		return 0, err
	}
	n := uint16(len(b.nodes))
	b.nodes = append(b.nodes, GlobNode{Class: class})
	b.sets = append(b.sets, set)
	b.byKey[string(key)] = n
	return n, nil
}

func (b *globBuilder) class(globs []int32) (uint16, error) {
	var key []byte
	for _, g := range globs {
		key = strconv.AppendInt(key, int64(g), 36)
		key = append(key, ' ')
	}
	if c, ok := b.byGlobs[string(key)]; ok {
		return c, nil
	}
	if len(b.classes) >= maxGlobClasses {
		return 0, errTooManyNodes
	}
	c := uint16(len(b.classes))
	b.classes = append(b.classes, globs)
	b.byGlobs[string(key)] = c
	return c, nil
}

// expand fills in a node's transitions. Bytes that no token names behave alike,
// so the set they lead to is built once.
func (b *globBuilder) expand(n int) error {
	var named [256]bool
	for _, p := range b.sets[n] {
		if t := b.tokens[p.glob]; int(p.pos) < len(t) && !t[p.pos].star && !t[p.pos].any {
			named[t[p.pos].b] = true
		}
	}
	other, haveOther := uint16(0), false
	for c := range 256 {
		if !named[c] && haveOther {
			b.nodes[n].Next[c] = other
			continue
		}
		next, err := b.node(b.step(n, byte(c), named[c]))
		if err != nil {
			return err
		}
		b.nodes[n].Next[c] = next
		if !named[c] {
			other, haveOther = next, true
		}
	}
	return nil
}

func (b *globBuilder) step(n int, c byte, named bool) []globPlace {
	var set []globPlace
	for _, p := range b.sets[n] {
		tokens := b.tokens[p.glob]
		if int(p.pos) == len(tokens) {
			continue
		}
		switch t := tokens[p.pos]; {
		case t.star:
			set = b.place(set, p)
		case t.any, named && t.b == c:
			set = b.place(set, globPlace{p.glob, p.pos + 1})
		}
	}
	return set
}

// reachable returns the classes of the nodes reachable from a start node, sorted,
// without class 0.
func (b *globBuilder) reachable(start uint16) []uint16 {
	if classes, ok := b.reach[start]; ok {
		return classes
	}
	seen := map[uint16]bool{start: true}
	var classes []uint16
	for queue := []uint16{start}; len(queue) > 0; queue = queue[1:] {
		node := &b.nodes[queue[0]]
		if node.Class != 0 {
			classes = append(classes, node.Class)
		}
		for _, next := range node.Next {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	slices.Sort(classes)
	classes = slices.Compact(classes)
	b.reach[start] = classes
	return classes
}
