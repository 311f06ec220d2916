// SPDX-License-Identifier: Apache-2.0

package policy

// summarize fills in Any and All of every state: the union and the intersection
// of Allow over the state and all that can be reached from it. States that reach
// one another share both, so it works on strongly connected components, which
// Tarjan's algorithm yields with everything reachable done before. Abstract
// sockets are left out: they are not below "/".
func (a *Automaton) summarize() {
	t := &reach{a: a, next: a.successors(), index: make([]uint32, len(a.States)), low: make([]uint32, len(a.States)), on: make([]bool, len(a.States))}
	for s := range a.States {
		if t.index[s] == 0 {
			t.visit(uint32(s))
		}
	}
}

// successors lists, for each state, where its transitions lead.
func (a *Automaton) successors() [][]uint32 {
	count := make([]int, len(a.States))
	for i := range a.States {
		count[i] = 1
	}
	for _, e := range a.Edges {
		count[e.From]++
	}
	for _, e := range a.GlobEdges {
		count[e.From]++
	}
	backing := make([]uint32, len(a.States)+len(a.Edges)+len(a.GlobEdges))
	next := make([][]uint32, len(a.States))
	for i := range next {
		next[i], backing = backing[:0:count[i]], backing[count[i]:]
		next[i] = append(next[i], a.States[i].Default)
	}
	for _, e := range a.Edges {
		if e.From != a.Start || e.Name != abstractName {
			next[e.From] = append(next[e.From], e.To)
		}
	}
	for _, e := range a.GlobEdges {
		next[e.From] = append(next[e.From], e.To)
	}
	return next
}

// reach is Tarjan's algorithm with its own stack: paths can be long.
type reach struct {
	a     *Automaton
	next  [][]uint32
	index []uint32 // order of discovery from 1; 0: not seen
	low   []uint32
	on    []bool // on stack
	stack []uint32
	calls []reachCall
	count uint32
}

type reachCall struct {
	state uint32
	edge  int
}

func (t *reach) visit(root uint32) {
	t.enter(root)
	for len(t.calls) > 0 {
		c := &t.calls[len(t.calls)-1]
		if c.edge == len(t.next[c.state]) {
			t.leave(c.state)
			continue
		}
		to := t.next[c.state][c.edge]
		c.edge++
		switch {
		case t.index[to] == 0:
			t.enter(to)
		case t.on[to]:
			t.low[c.state] = min(t.low[c.state], t.index[to])
		}
	}
}

func (t *reach) enter(s uint32) {
	t.count++
	t.index[s], t.low[s], t.on[s] = t.count, t.count, true
	t.stack = append(t.stack, s)
	t.calls = append(t.calls, reachCall{state: s})
}

func (t *reach) leave(s uint32) {
	t.calls = t.calls[:len(t.calls)-1]
	if n := len(t.calls); n > 0 {
		parent := t.calls[n-1].state
		t.low[parent] = min(t.low[parent], t.low[s])
	}
	if t.low[s] != t.index[s] {
		return
	}
	at := len(t.stack) - 1
	for t.stack[at] != s {
		at--
	}
	t.finish(t.stack[at:])
	t.stack = t.stack[:at]
}

// finish gives the states of one component their Any and All. Those of other
// components it leads to are known already; its own count by their Allow alone.
func (t *reach) finish(members []uint32) {
	var union Access
	all := ^Access(0)
	for _, m := range members {
		union |= t.a.States[m].Allow
		all &= t.a.States[m].Allow
		for _, to := range t.next[m] {
			if !t.on[to] {
				union |= t.a.States[to].Any
				all &= t.a.States[to].All
			}
		}
	}
	for _, m := range members {
		t.a.States[m].Any, t.a.States[m].All = union, all
		t.on[m] = false
	}
}
