// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"slices"
	"strings"

	"bailiff.dev/bailiff/policy"
)

// A set of policies is compiled anew at every change, but most of it is as it was:
// what has been parsed and compiled is kept with the set in force, and taken over
// where nothing that it came of has changed.

// compiled is what the documents about one subject came to.
type compiled struct {
	subject     string
	of          []*parsed       // the documents about it, in order
	ruleset     *policy.Ruleset // nil: it is not, see problems
	problems    policy.Problems // those of this host among them
	unsupported bool            // a line can be enforced nowhere
}

// compileSubjects compiles a candidate's documents, which have parsed, for every
// subject. It tells whether each line can be enforced somewhere.
func (d *Daemon) compileSubjects(c *candidate) (ok bool) {
	ok = !c.problems.Has(policy.Unsupported)
	before := map[string]*compiled{}
	for _, x := range d.policies.compiled {
		before[x.subject] = x
	}
	c.problems = append(c.problems, policy.Check(c.docs)...)
	about := indexSubjects(c.docs)
	for _, subject := range policy.Subjects(c.docs) {
		docs := about.of(subject)
		x := &compiled{subject: subject}
		for _, i := range docs {
			x.of = append(x.of, c.sources[i])
		}
		if old := before[subject]; old != nil && slices.Equal(old.of, x.of) {
			x = old
		} else {
			d.compileSubject(x, c.docs, docs)
		}
		c.problems = append(c.problems, x.problems...)
		if x.ruleset != nil {
			c.compiled = append(c.compiled, x)
		}
		ok = ok && !x.unsupported
	}
	return ok
}

// compileSubject compiles the documents of some numbers, and asks what of them
// this host does not enforce.
func (d *Daemon) compileSubject(x *compiled, docs []policy.Document, numbers []int) {
	var own []policy.Document
	for _, i := range numbers {
		own = append(own, docs[i])
	}
	x.ruleset, x.problems = policy.Compile(x.subject, own)
	x.unsupported = x.problems.Has(policy.Unsupported)
	if x.ruleset != nil && d.lsm != nil {
		_, lost := x.ruleset.Landlock(own)
		x.problems = append(x.problems, lost...)
	}
}

// subjectIndex finds the documents about an agent, by number.
type subjectIndex struct {
	exact    map[string][]int
	families []family // documents about more agents than one
}

type family struct {
	subject  string
	document int
}

func indexSubjects(docs []policy.Document) subjectIndex {
	x := subjectIndex{exact: map[string][]int{}}
	for i := range docs {
		for _, subject := range docs[i].Subjects() {
			if strings.HasSuffix(subject, "*") {
				x.families = append(x.families, family{subject, i})
			}
			x.exact[subject] = append(x.exact[subject], i)
		}
	}
	return x
}

// of lists the documents about an agent, in their order.
func (x subjectIndex) of(agent string) []int {
	list := slices.Clone(x.exact[agent])
	for _, f := range x.families {
		if policy.Match(f.subject, agent) {
			list = append(list, f.document)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
