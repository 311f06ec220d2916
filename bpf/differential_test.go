// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// batchSize is how many accesses a session tries in a row; between two batches
// the tree changes from outside.
const (
	batchSize     = 15
	batchesEach   = 4  // of one policy
	policiesAtOne = 50 // in force together
)

// TestKernelAgreesWithReference draws policies, and has confined processes make
// random accesses to real files under each: the kernel must answer as the
// reference evaluator does, by the rules in differential_model_test.go.
// BAILIFF_DIFFERENTIAL is the number of policies, BAILIFF_SEED what is drawn.
func TestKernelAgreesWithReference(t *testing.T) {
	k := full(t)
	policies, seed := setting(t, "BAILIFF_DIFFERENTIAL", 40), uint64(setting(t, "BAILIFF_SEED", 1))
	g := newGenerator(seed)
	d := &differential{t: t, k: k, g: g, places: makePlaces(t, k, g), counts: map[string]*[2]int{}, seed: seed}
	for _, name := range abstractNames() {
		if err := serveUnix(t, "@"+name); err != nil {
			t.Fatal(err)
		}
	}
	for first := 0; first < policies; first += policiesAtOne {
		d.round(first, min(policiesAtOne, policies-first))
	}
	d.report(policies)
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// differential is one run of the test.
type differential struct {
	t      *testing.T
	k      *kernel
	g      generator
	places []*place
	counts map[string]*[2]int // by operation: how many were denied, and allowed
	seed   uint64
	number int // of the policy that is in force
}

// round puts some policies in force at once, each about an agent of its own, and
// makes the sessions' agent one after the other of these.
func (d *differential) round(first, n int) {
	var all []*agentPolicies
	var at []*place
	var sets []*policy.Ruleset
	for i := range n {
		place := d.places[(first+i)%len(d.places)]
		p, err := d.g.policies(first+i, place.bases())
		if err != nil {
			d.t.Fatal(err)
		}
		all, at, sets = append(all, p), append(at, place), append(sets, p.set)
	}
	for _, set := range sets {
		capable(set, ^policy.Capabilities(0))
	}
	if _, err := d.k.Apply(Set{Rulesets: sets}); err != nil {
		d.t.Fatalf("apply: %v", err)
	}
	for i, p := range all {
		d.number = first + i
		d.judgeBy(p.agent)
		for range batchesEach {
			d.batch(p, at[i])
			at[i].garden(d.g, 2)
		}
	}
}

// judgeBy lets the rules of an agent, which are in force, decide about the
// sessions of this test. Doing that by Apply would mostly be waiting.
func (d *differential) judgeBy(agent string) {
	d.t.Helper()
	number, err := d.k.AgentNumber(testSubject, testSubject)
	if err != nil {
		d.t.Fatal(err)
	}
	for slot := range 2 {
		if err := d.k.writeAgent(number, slot, d.k.active[agent]); err != nil {
			d.t.Fatal(err)
		}
	}
}

// batch has a session try some accesses that its view of a place makes possible.
func (d *differential) batch(p *agentPolicies, at *place) {
	d.t.Helper()
	v := pick(d.g, at.views...)
	var tried []*access
	var want []bool
	var calls []any
	for range batchSize {
		a := draw{d.g, v}.access()
		allowed := d.predict(p, a)
		tried, want, calls = append(tried, a), append(want, allowed), append(calls, strings.Join(a.call, "\x00"))
	}
	errnos := strings.Fields(v.session.do("perform", calls...).Value)
	d.k.told(d.t, time.Millisecond)
	if len(errnos) != len(tried) {
		d.t.Fatalf("%d answers to %d accesses", len(errnos), len(tried))
	}
	for i, a := range tried {
		errno, _ := strconv.Atoi(errnos[i])
		if got, sure := verdictOf(syscall.Errno(errno)); !sure || got != want[i] {
			d.fail(p, at, v, tried[:i+1], syscall.Errno(errno), want[i])
		}
		d.count(a.call[0], want[i])
	}
}

// verdictOf tells what an error number says of the verdict; sure is false for one
// that no policy is the reason of.
func verdictOf(errno syscall.Errno) (allowed, sure bool) {
	denied := errno == unix.EACCES || errno == unix.EPERM
	return !denied, denied || errno == 0
}

// predict says whether an access will be allowed, and changes the tree as it will.
func (d *differential) predict(p *agentPolicies, a *access) bool {
	for _, s := range a.steps {
		if !p.allows(s) {
			return false
		}
		if s.done != nil {
			s.done()
		}
	}
	if s := a.moved; s != nil && s.move.directory && !p.set.Audit && !s.at.outside {
		if below, found := p.widens(d.g, s.at, s.move.to); found {
			d.t.Fatalf("seed %d, policy %d: %q would give more rights below, at %q\n%s", d.seed, d.number, a.call, below, p.yaml())
		}
	}
	return true
}

func (d *differential) count(operation string, allowed bool) {
	if d.counts[operation] == nil {
		d.counts[operation] = new([2]int)
	}
	if allowed {
		d.counts[operation][1]++
	} else {
		d.counts[operation][0]++
	}
}

// report says how much was tried. An operation that only ever had one answer
// would have been no test.
func (d *differential) report(policies int) {
	var lines strings.Builder
	total := [2]int{}
	for _, operation := range slices.Sorted(maps.Keys(d.counts)) {
		n := d.counts[operation]
		fmt.Fprintf(&lines, "\n%-9s %6d denied %6d allowed", operation, n[0], n[1])
		total[0], total[1] = total[0]+n[0], total[1]+n[1]
		if policies >= 40 && (n[0] == 0 || n[1] == 0) {
			d.t.Errorf("%s: %d denied and %d allowed: both must be seen", operation, n[0], n[1])
		}
	}
	d.t.Logf("%d policies, %d accesses: %d denied, %d allowed%s", policies, total[0]+total[1], total[0], total[1], &lines)
}
