// SPDX-License-Identifier: Apache-2.0

package daemon

import (
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

	parsed *parsed // what Text says; nil: not parsed by this life of the daemon
}

// storedPolicies is the file "policies", see policiesOnDisk: what is to be in force.
type storedPolicies struct {
	storedSet
	Before storedSet   // what judged until then: events that wait in the ring can be of it
	Record audit.Event // of the last change, as the log has it or will
}

// storedSet is the documents that judge from a generation on.
type storedSet struct {
	Since     uint64
	Documents []storedDocument
	Builtin   string // the document that was added to them
}

const policiesFile = "policies"

// policies is what is in force.
type policies struct {
	apply      sync.RWMutex // held while a set is put in force, or a session judged by one is made
	mu         sync.RWMutex // what follows
	stored     storedPolicies
	builtin    storedDocument // of this life of the daemon, not written down
	docs       []policy.Document
	compiled   []*compiled
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
	sources  []*parsed // of each of docs: what it was parsed from
	compiled []*compiled
	problems policy.Problems
}

func (c *candidate) rulesets() []*policy.Ruleset {
	var list []*policy.Ruleset
	for _, x := range c.compiled {
		list = append(list, x.ruleset)
	}
	return list
}

// compile compiles stored documents, with the built-in one. A candidate that has
// problems that refuse it comes with ok false.
func (d *Daemon) compile(stored storedPolicies) (c candidate, ok bool) {
	builtin, err := d.builtin()
	c, ok = d.compileWith(stored, builtin)
	if err != nil {
		c.problems = append(c.problems, policy.Problem{Severity: policy.Error, Pos: policy.Position{File: builtin.File}, Message: err.Error()})
		return c, false
	}
	return c, ok
}

func (d *Daemon) compileWith(stored storedPolicies, builtin storedDocument) (c candidate, ok bool) {
	c.stored = stored
	c.stored.Builtin = builtin.Text
	if builtin.Text == d.policies.builtin.Text {
		builtin.parsed = d.policies.builtin.parsed
	}
	if err := c.addBuiltin(builtin); err != nil {
		c.problems = policy.Problems{{Severity: policy.Error, Pos: policy.Position{File: "<builtin>"}, Message: err.Error()}}
		return c, false
	}
	c.sources = slices.Repeat([]*parsed{c.builtin.parsed}, len(c.docs))
	for _, p := range parseAll(c.stored.Documents) {
		c.docs, c.problems = append(c.docs, p.docs...), append(append(c.problems, p.problems...), aboutOwn(p.docs)...)
		c.sources = append(c.sources, slices.Repeat([]*parsed{p}, len(p.docs))...)
	}
	if c.problems.Has(policy.Error) {
		return c, false
	}
	ok = d.compileSubjects(&c) && !c.problems.Has(policy.Error)
	c.problems.Sort()
	return c, ok
}

// applyChange puts other policies in force, and says so in the log.
func (d *Daemon) applyChange(ctx context.Context, c candidate, message string, names []string) error {
	generation, err := d.kernel.Generation()
	if err != nil {
		return err
	}
	// What waits in the ring is of the sets that are remembered, from here on of the next one too.
	d.drain()
	p := &d.policies
	generation++
	c.stored.Since, c.stored.Before = generation, p.stored.storedSet
	c.stored.Record = d.policyRecord(ctx, generation, message, names)
	stamp(&c.stored, p.stored, generation, d.now())
	// Written first: a daemon that is killed in between comes back to these.
	before := p.stored
	if err := d.store.write(policiesFile, c.stored); err != nil {
		return err
	}
	if err := d.put(c); err != nil {
		if undo := d.store.write(policiesFile, before); undo != nil {
			d.log.Error("the stored policies are not those in force", "error", undo)
		}
		return err
	}
	d.recordChange()
	return nil
}

// aboutOwn refuses documents about agents of the daemon's own.
func aboutOwn(docs []policy.Document) (problems policy.Problems) {
	for i := range docs {
		if slices.ContainsFunc(docs[i].Subjects(), ownAgent) {
			problems = append(problems, policy.Problem{
				Severity: policy.Error, Pos: docs[i].Pos,
				Message: fmt.Sprintf("%s is about agents below %s, which are Bailiff's own", docs[i].Name, ownDomain),
				Fix:     "choose another trust domain",
			})
		}
	}
	return problems
}

// put puts a candidate in force: all of it or none.
func (d *Daemon) put(c candidate) error {
	p := &d.policies
	subjects := policy.Subjects(c.docs)
	next, err := d.kernel.Generation()
	if err != nil {
		return err
	}
	next++
	if c.builtin.Generation, c.builtin.Applied = p.builtin.Generation, p.builtin.Applied; c.builtin.Text != p.builtin.Text {
		c.builtin.Generation, c.builtin.Applied = next, d.now()
	}
	set := bpf.Set{Rulesets: c.rulesets(), Agents: map[string]string{}}
	for agent := range d.kernel.Agents() {
		if subject, ok := policy.SubjectFor(agent, subjects); ok {
			set.Agents[agent] = subject
		}
	}
	rulesets := bySubject(c.rulesets())
	p.remember(past{next, rulesets, subjects})
	generation, err := d.kernel.Apply(set)
	if generation == 0 {
		p.forget(next)
		return err
	}
	if err != nil {
		d.log.Error("rules that are no longer in force stay in the kernel's tables", "error", err)
	}
	p.mu.Lock()
	p.stored, p.builtin, p.docs = c.stored, c.builtin, c.docs
	p.compiled, p.rulesets, p.subjects, p.problems = c.compiled, rulesets, subjects, c.problems
	p.generation, p.applied = generation, d.now()
	p.mu.Unlock()
	d.metrics.Generation.Set(float64(generation))
	d.metrics.LastApplied.Set(float64(p.applied.Unix()))
	return nil
}

// stamp notes on each document whether it changed.
func stamp(s *storedPolicies, before storedPolicies, generation uint64, now time.Time) {
	old := map[string]*storedDocument{}
	for i := range before.Documents {
		old[before.Documents[i].Name] = &before.Documents[i]
	}
	for i := range s.Documents {
		doc := &s.Documents[i]
		doc.Generation, doc.Applied = generation, now
		if was := old[doc.Name]; was != nil && was.Text == doc.Text && was.AcceptDegraded == doc.AcceptDegraded {
			doc.Generation, doc.Applied = was.Generation, was.Applied
		}
	}
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
	owner := owners(pointers(p.stored.Documents))
	for _, problem := range problems {
		i := owner(problem.Pos)
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
	merged := storedPolicies{storedSet: storedSet{Documents: slices.Clone(fresh)}}
	given := map[string]bool{}
	for _, s := range fresh {
		given[s.Name] = true
	}
	for _, s := range p.stored.Documents {
		if !replace && !given[s.Name] {
			merged.Documents = append(merged.Documents, s)
		}
	}
	slices.SortFunc(merged.Documents, byName)
	return merged
}

// policyRecord makes the record of a change.
func (d *Daemon) policyRecord(ctx context.Context, generation uint64, message string, names []string) audit.Event {
	fields := map[string]string{
		"generation": strconv.FormatUint(generation, 10),
		"policies":   strings.Join(names, ", "),
	}
	if by := peerName(ctx); by != "" {
		fields["by"] = by
	}
	return audit.Event{ID: d.audit.NewID(), Time: d.now(), Kind: audit.Policy, Message: message, Generation: generation, Fields: fields}
}

// recordChange writes the record of the last change, if the log hasn't got it.
func (d *Daemon) recordChange() {
	ev := d.policies.stored.Record
	if ev.ID == "" || d.earlier.recorded(ev.ID) {
		d.change = ev.ID
		return
	}
	d.log.Info(ev.Message, "generation", ev.Generation, "policies", ev.Fields["policies"])
	d.record(ev, func() { d.change = ev.ID })
}
