// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// LandlockView is what an allow-only mechanism over paths that exist at launch
// can do of a ruleset's files rules.
type LandlockView struct {
	// Paths is what to allow. The launcher grants each existing path that a
	// pattern matches the rights in Access that Automaton.Walk's state for that
	// path allows too: an equal or stronger deny of the same path is then honoured.
	Paths []LandlockPath
}

// LandlockPath is one path, or one pattern of paths, with the rights on it and
// on everything below.
type LandlockPath struct {
	Components []PathComponent // from the root down; none: "/"
	Glob       bool            // some component is not literal: expand it over what exists
	Access     Access
	Rule       RuleNumber
}

// PathComponent is a component of a pattern.
type PathComponent struct {
	Name     string // where Literal: the name itself
	Literal  bool
	AnyDepth bool // "**": any number of components, none included
	c        component
}

// Match reports whether a name matches; of an AnyDepth component every name does.
func (c PathComponent) Match(name string) bool {
	return c.AnyDepth || c.c.matches(name)
}

// Path returns the path with "/" between components; ok is false for a pattern.
func (p *LandlockPath) Path() (path string, ok bool) {
	var b strings.Builder
	for _, c := range p.Components {
		if !c.Literal {
			return "", false
		}
		b.WriteString("/" + c.Name)
	}
	if b.Len() == 0 {
		return "/", true
	}
	return b.String(), true
}

// Landlock returns what an allow-only mechanism can enforce of a ruleset, and a
// problem for each line that it can't enforce as written. The documents are those
// the ruleset was compiled from. Presets' wildcards lose nothing: what they name
// is there when a session starts.
func (r *Ruleset) Landlock(docs []Document) (LandlockView, Problems) {
	l := collect(r.Agent, docs)
	var view LandlockView
	var ps Problems
	for i := range l.files {
		rule := &l.files[i]
		if rule.deny {
			continue
		}
		if rule.access == Connect {
			why := "connecting to other Unix sockets is not checked by path here"
			if rule.pattern.abstract {
				why = "Landlock closes every abstract socket outside the session or, before its ABI 6, none"
			}
			ps = append(ps, r.degraded(rule, why))
			continue
		}
		view.Paths = append(view.Paths, landlockPath(rule))
		if rule.pattern.wild && !rule.preset {
			ps = append(ps, r.degraded(rule, "only the paths that exist when the session starts are allowed"))
		}
	}
	ps = append(ps, r.deniedInside()...)
	ps.Sort()
	return view, ps
}

func landlockPath(rule *pathRule) LandlockPath {
	p := LandlockPath{Glob: rule.pattern.wild, Access: rule.access, Rule: rule.number}
	for _, c := range rule.pattern.components {
		part := PathComponent{Literal: c.kind == literal, AnyDepth: c.kind == anyDepth, c: c}
		if part.Literal {
			part.Name = c.text
		}
		p.Components = append(p.Components, part)
	}
	return p
}

func (r *Ruleset) degraded(rule *pathRule, why string) Problem {
	about := &r.Rules[rule.number]
	return Problem{
		Severity: Degraded, Pos: about.Pos,
		Message: fmt.Sprintf("%s (%s) is not enforced as written without BPF LSM: %s", about.ID, about.Text, why),
	}
}

// deniedInside reports the deny rules that take back, deeper in a tree, what an
// allow rule gave: in the automaton, a transition from a state that allows a
// right to one that a rule denies it in. A deny of what nothing allowed is
// enforced by the default.
func (r *Ruleset) deniedInside() Problems {
	lost := lostRights{r: r, inside: map[RuleNumber]Access{}, guarded: map[RuleNumber][]RuleNumber{}}
	for i := range r.Files.States {
		lost.note(uint32(i), r.Files.States[i].Default)
	}
	for _, e := range r.Files.Edges {
		if e.Name != abstractName {
			lost.note(e.From, e.To)
		}
	}
	for _, e := range r.Files.GlobEdges {
		lost.note(e.From, e.To)
	}
	return append(lost.problems(), lost.guardedProblems()...)
}

// lostRights are the denies inside of what is allowed.
type lostRights struct {
	r       *Ruleset
	inside  map[RuleNumber]Access       // by the rule that denies
	guarded map[RuleNumber][]RuleNumber // lines of the built-in guardrail, by the rule that allows around them
}

// note looks at one transition.
func (l *lostRights) note(from, to uint32) {
	outer, inner := &l.r.Files.States[from], &l.r.Files.States[to]
	lost := outer.Allow & inner.Deny
	for bit := range NumAccess {
		if lost&(1<<bit) == 0 {
			continue
		}
		deny := inner.Rule[bit]
		switch {
		case l.r.Rules[deny].Policy != Builtin:
			l.inside[deny] |= 1 << bit
		case 1<<bit != Connect: // of which each allow is reported already
			l.guarded[outer.Rule[bit]] = append(l.guarded[outer.Rule[bit]], deny)
		}
	}
}

func (l *lostRights) problems() (ps Problems) {
	for number, access := range l.inside {
		rule := &l.r.Rules[number]
		ps = append(ps, Problem{
			Severity: Unsupported, Pos: rule.Pos,
			Message: fmt.Sprintf("%s (%s) is not enforced without BPF LSM: %s stays allowed there, because it is inside a tree that another line allows", rule.ID, rule.Text, access),
			Fix:     "allow the directories beside it one by one, or accept it for this policy",
		})
	}
	return ps
}

// guardedProblems has one problem for each rule that allows around lines of the
// built-in guardrail, however many those are.
func (l *lostRights) guardedProblems() (ps Problems) {
	for number, denied := range l.guarded {
		slices.Sort(denied)
		denied = slices.Compact(denied)
		rule := &l.r.Rules[number]
		ps = append(ps, Problem{
			Severity: Unsupported, Pos: rule.Pos,
			Message: fmt.Sprintf("%s (%s) opens, without BPF LSM, what the built-in guardrail closes inside of it: %d of its lines, such as %s",
				rule.ID, rule.Text, len(denied), l.r.Rules[denied[0]].Text),
			Fix: "allow the directories beside those one by one (`bailiff policy show builtin` lists them), or accept it for this policy",
		})
	}
	return ps
}

// Rights returns what a path may be used for: the launcher's helper for
// LandlockView, with the path as components from the root down.
func (r *Ruleset) Rights(components []string) Access {
	return r.Files.States[r.Files.Walk(slices.Clip(components))].Allow
}
