// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
)

// Compile makes the ruleset of an agent: a SPIFFE ID, or one of the Subjects of
// the documents. It returns nil where no AgentPolicy is about the agent or where
// a limit is exceeded; a Problem then says so. Lines that can't be enforced are
// left out of the ruleset and reported as Unsupported: don't apply one that has
// such problems.
//
// The same documents, in whatever order, compile to the same ruleset.
func Compile(agent string, docs []Document) (*Ruleset, Problems) {
	l := collect(agent, docs)
	r := l.compile(agent)
	l.problems.Sort()
	return r, l.problems
}

func (l *ruleList) compile(agent string) *Ruleset {
	if l.policies == 0 {
		l.problems = append(l.problems, Problem{
			Severity: Error, Pos: Position{File: agent},
			Message: fmt.Sprintf("no AgentPolicy is about %q", agent),
			Fix:     "add one whose subject covers it",
		})
		return nil
	}
	r := &Ruleset{Agent: agent, Audit: l.audit, Rules: l.rules, Self: l.self, Capabilities: l.caps, Env: l.env}
	var err error
	if r.Files, err = buildAutomaton(l.files); err != nil {
		l.problems = append(l.problems, l.limit(err))
	}
	if r.Net, err = buildNetTable(l.network); err != nil {
		l.problems = append(l.problems, l.limit(err))
	}
	if l.problems.Has(Error) {
		return nil
	}
	r.Digest = r.digest()
	return r
}

// CompileAll makes a ruleset for each of the Subjects of the documents, in that
// order, and reports every problem among and within them: those of Check, and
// those of each Compile once. If a problem is an Error the rulesets are not
// complete.
func CompileAll(docs []Document) ([]*Ruleset, Problems) {
	ps := Check(docs)
	var rulesets []*Ruleset
	for _, s := range Subjects(docs) {
		r, more := Compile(s, docs)
		ps = append(ps, more...)
		if r != nil {
			rulesets = append(rulesets, r)
		}
	}
	ps.Sort()
	return rulesets, ps
}

// limit says where a ruleset outgrew a limit: at the document that has the most
// rules with wildcards, or the most rules.
func (l *ruleList) limit(err error) Problem {
	weight := map[string]int{}
	first := map[string]Position{}
	add := func(n RuleNumber, by int) {
		r := &l.rules[n]
		if _, ok := first[r.Policy]; !ok && r.Policy != Builtin {
			first[r.Policy] = r.Pos
		}
		weight[r.Policy] += by
	}
	for i := range l.files {
		if l.files[i].pattern.wild {
			add(l.files[i].number, 1000)
		} else {
			add(l.files[i].number, 1)
		}
	}
	for i := range l.network {
		add(l.network[i].number, 1)
	}
	heaviest, pos := "", Position{}
	for name, p := range first {
		if heaviest == "" || weight[name] > weight[heaviest] || weight[name] == weight[heaviest] && name < heaviest {
			heaviest, pos = name, p
		}
	}
	fix := `use fewer lines with "**" above paths that have many lines of their own, or name directories instead of the files in them`
	if errors.Is(err, errTooManyNodes) {
		fix = `use fewer, or simpler, wildcards within components`
	} else if errors.Is(err, errTooManyRanges) || errors.Is(err, errTooManyPrefixes) {
		fix = "join networks and ports"
	}
	return Problem{Severity: Error, Pos: pos, Message: fmt.Sprintf("policy %q is too large to compile: %v", heaviest, err), Fix: fix}
}

// Walk returns the number of the state that a path leads to, given its
// components from the root down.
func (a *Automaton) Walk(components []string) uint32 {
	s := a.Start
	for _, c := range components {
		s = a.step(s, c)
	}
	return s
}

func (a *Automaton) step(s uint32, name string) uint32 {
	if to, ok := a.edge(s, name); ok {
		return to
	}
	if node := a.States[s].Glob; node != 0 {
		for i := range len(name) {
			node = a.Globs[node].Next[name[i]]
		}
		if class := a.Globs[node].Class; class != 0 {
			if to, ok := a.globEdge(s, class); ok {
				return to
			}
		}
	}
	return a.States[s].Default
}

func (a *Automaton) edge(from uint32, name string) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(a.Edges, Edge{From: from, Name: name}, func(x, y Edge) int {
		return compareEdge(x.From, y.From, x.Name, y.Name)
	})
	if !ok {
		return 0, false
	}
	return a.Edges[i].To, true
}

func (a *Automaton) globEdge(from uint32, class uint16) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(a.GlobEdges, GlobEdge{From: from, Class: class}, func(x, y GlobEdge) int {
		return compareEdge(x.From, y.From, x.Class, y.Class)
	})
	if !ok {
		return 0, false
	}
	return a.GlobEdges[i].To, true
}
