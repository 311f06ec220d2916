// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/policy"
)

// storedDocument is one policy as it was applied: the text is kept, so that a
// daemon that comes back compiles the same.
type storedDocument struct {
	Name           string
	File           string // where it came from, for messages
	Line           int    // lines of that file before Text
	Text           string
	AcceptDegraded bool
	Generation     uint64 // when it last changed
	Applied        time.Time
}

// storedPolicies is the file "policies": what is to be in force.
type storedPolicies struct {
	Documents []storedDocument
}

const policiesFile = "policies"

// policies is what is in force.
type policies struct {
	apply      sync.RWMutex // held while a set is put in force, or a session judged by one is made
	mu         sync.RWMutex // what follows
	stored     storedPolicies
	builtin    storedDocument // of this life of the daemon, not written down
	docs       []policy.Document
	rulesets   map[string]*policy.Ruleset // by subject
	subjects   []string
	problems   policy.Problems
	generation uint64
	applied    time.Time
	history    []past // latest last
}

// past is what judged from a generation on: an event is explained by the rules
// that made it.
type past struct {
	from     uint64
	rulesets map[string]*policy.Ruleset
	subjects []string
}

// maxHistory bounds how many generations back an event can be explained. Events
// wait in the ring for milliseconds.
const maxHistory = 64

// candidate is a set of policies that compiled.
type candidate struct {
	stored   storedPolicies
	builtin  storedDocument
	docs     []policy.Document
	rulesets []*policy.Ruleset
	problems policy.Problems
}

// compile compiles stored documents, with the built-in one. A candidate that has
// problems that refuse it comes with ok false.
func (d *Daemon) compile(stored storedPolicies) (c candidate, ok bool) {
	c.stored = stored
	if err := d.addBuiltin(&c); err != nil {
		c.problems = policy.Problems{{Severity: policy.Error, Pos: policy.Position{File: "<builtin>"}, Message: err.Error()}}
		return c, false
	}
	for _, s := range stored.Documents {
		docs, problems := s.parse()
		c.docs, c.problems = append(c.docs, docs...), append(c.problems, problems...)
	}
	if c.problems.Has(policy.Error) {
		return c, false
	}
	var problems policy.Problems
	c.rulesets, problems = policy.CompileAll(c.docs)
	c.problems = append(c.problems, problems...)
	ok = !c.problems.Has(policy.Error) && !c.problems.Has(policy.Unsupported)
	if ok && !d.kernel.Full() {
		for _, r := range c.rulesets {
			_, lost := r.Landlock(c.docs)
			c.problems = append(c.problems, lost...)
		}
	}
	c.problems.Sort()
	return c, ok
}

// put puts a candidate in force: all of it or none.
func (d *Daemon) put(c candidate) error {
	p := &d.policies
	before := p.stored
	subjects := policy.Subjects(c.docs)
	next, err := d.kernel.Generation()
	if err != nil {
		return err
	}
	next++
	stamp(&c.stored, before, next, d.now())
	if c.builtin.Generation, c.builtin.Applied = p.builtin.Generation, p.builtin.Applied; c.builtin.Text != p.builtin.Text {
		c.builtin.Generation, c.builtin.Applied = next, d.now()
	}
	// Written first: a daemon that is killed in between comes back to these.
	if err := d.store.write(policiesFile, c.stored); err != nil {
		return err
	}
	set := bpf.Set{Rulesets: c.rulesets, Agents: map[string]string{}}
	for agent := range d.kernel.Agents() {
		if subject, ok := policy.SubjectFor(agent, subjects); ok {
			set.Agents[agent] = subject
		}
	}
	rulesets := bySubject(c.rulesets)
	p.remember(past{next, rulesets, subjects})
	generation, err := d.kernel.Apply(set)
	if generation == 0 {
		p.forget(next)
		if undo := d.store.write(policiesFile, before); undo != nil {
			d.log.Error("the stored policies are not those in force", "error", undo)
		}
		return err
	}
	if err != nil {
		d.log.Error("rules that are no longer in force stay in the kernel's tables", "error", err)
	}
	p.mu.Lock()
	p.stored, p.builtin, p.docs = c.stored, c.builtin, c.docs
	p.rulesets, p.subjects, p.problems = rulesets, subjects, c.problems
	p.generation, p.applied = generation, d.now()
	p.mu.Unlock()
	d.metrics.Generation.Set(float64(generation))
	d.metrics.LastApplied.Set(float64(p.applied.Unix()))
	return nil
}

// stamp notes on each document whether it changed.
func stamp(s *storedPolicies, before storedPolicies, generation uint64, now time.Time) {
	for i := range s.Documents {
		doc := &s.Documents[i]
		doc.Generation, doc.Applied = generation, now
		for _, old := range before.Documents {
			if old.Name == doc.Name && old.Text == doc.Text && old.AcceptDegraded == doc.AcceptDegraded {
				doc.Generation, doc.Applied = old.Generation, old.Applied
			}
		}
	}
}

// explainPast lets a candidate explain what an earlier life of the daemon judged.
func (d *Daemon) explainPast(c candidate) error {
	generation, err := d.kernel.Generation()
	if err == nil {
		d.policies.remember(past{generation, bySubject(c.rulesets), policy.Subjects(c.docs)})
	}
	return err
}

func bySubject(rulesets []*policy.Ruleset) map[string]*policy.Ruleset {
	m := map[string]*policy.Ruleset{}
	for _, r := range rulesets {
		m[r.Agent] = r
	}
	return m
}

func (p *policies) remember(x past) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = append(p.history, x)
	if len(p.history) > maxHistory {
		p.history = slices.Delete(p.history, 0, 1)
	}
}

func (p *policies) forget(generation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = slices.DeleteFunc(p.history, func(x past) bool { return x.from == generation })
}

// ruleset returns what judged an agent in a generation; nil if that is no
// longer, or was never, known.
func (p *policies) ruleset(agent string, generation uint64) *policy.Ruleset {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, x := range slices.Backward(p.history) {
		if x.from <= generation {
			subject, _ := policy.SubjectFor(agent, x.subjects)
			return x.rulesets[subject]
		}
	}
	return nil
}

// forAgent returns what judges an agent now.
func (p *policies) forAgent(agent string) (r *policy.Ruleset, docs []policy.Document, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	subject, ok := policy.SubjectFor(agent, p.subjects)
	return p.rulesets[subject], p.docs, ok && p.rulesets[subject] != nil
}

// degraded returns what this host does not enforce as written of the policies
// that are about an agent, and the first of them that was applied without
// accepting that.
func (p *policies) degraded(r *policy.Ruleset) (problems policy.Problems, unaccepted string) {
	_, problems = r.Landlock(p.docs)
	for _, problem := range problems {
		i := slices.IndexFunc(p.stored.Documents, func(s storedDocument) bool { return s.holds(problem.Pos) })
		if unaccepted == "" && (i < 0 || !p.stored.Documents[i].AcceptDegraded) {
			unaccepted = problem.String()
		}
	}
	return problems, unaccepted
}

// merge returns the documents in force with fresh ones put in their place, by
// name.
func (p *policies) merge(fresh []storedDocument, replace bool) storedPolicies {
	p.mu.RLock()
	defer p.mu.RUnlock()
	merged := storedPolicies{Documents: slices.Clone(fresh)}
	given := map[string]bool{}
	for _, s := range fresh {
		given[s.Name] = true
	}
	for _, s := range p.stored.Documents {
		if !replace && !given[s.Name] {
			merged.Documents = append(merged.Documents, s)
		}
	}
	slices.SortFunc(merged.Documents, func(a, b storedDocument) int { return cmp.Compare(a.Name, b.Name) })
	return merged
}

// recordPolicies writes to the log what changed.
func (d *Daemon) recordPolicies(ctx context.Context, message string, names []string) {
	fields := map[string]string{
		"generation": strconv.FormatUint(d.policies.generation, 10),
		"policies":   strings.Join(names, ", "),
	}
	if by := peerName(ctx); by != "" {
		fields["by"] = by
	}
	d.audit.Write(audit.Event{Kind: audit.Policy, Message: message, Generation: d.policies.generation, Fields: fields})
	d.log.Info(message, "generation", d.policies.generation, "policies", fmt.Sprint(names))
}
