// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"bailiff.dev/bailiff/policy"
)

// fail ends the test with all that is needed to see what is wrong: the seed, the
// policies, the access, what the reference says of each of its steps, and what
// the kernel answered.
func (d *differential) fail(p *agentPolicies, at *place, v *view, tried []*access, errno syscall.Errno, want bool) {
	d.t.Helper()
	a := tried[len(tried)-1]
	small, texts := d.shrink(p, v, a, want)
	var b strings.Builder
	fmt.Fprintf(&b, "BAILIFF_SEED=%d, policy %d, %s seen through %s:\n%q\n", d.seed, d.number, at.name, v.name, a.call)
	fmt.Fprintf(&b, "kernel: %s; the reference: %s\n", answer(errno), map[bool]string{true: "allowed", false: "denied"}[want])
	for _, s := range a.steps {
		d.explain(&b, small, "at", s.at, s.rights)
		if s.move != nil {
			d.explain(&b, small, "to", s.move.to, s.move.rights)
		}
	}
	for _, before := range tried[max(0, len(tried)-6) : len(tried)-1] {
		fmt.Fprintf(&b, "before: %q\n", before.call)
	}
	d.t.Fatalf("%s%s", &b, strings.Join(texts, "---\n"))
}

func answer(errno syscall.Errno) string {
	if errno == 0 {
		return "allowed"
	}
	return errno.Error()
}

func (d *differential) explain(b *strings.Builder, p *agentPolicies, what string, at spot, rights policy.Access) {
	fmt.Fprintf(b, "  %s /%s (outside: %v)\n", what, strings.Join(at.path, "/"), at.outside)
	if at.hidden != nil {
		fmt.Fprintf(b, "    which its file system has at /%s\n", strings.Join(at.hidden, "/"))
	}
	if rights == 0 {
		rights = uses
	}
	for right := policy.Access(1); right <= policy.Connect; right <<= 1 {
		if rights&right != 0 {
			decision := p.ref.File(at.path, right)
			fmt.Fprintf(b, "    %-8s %-5v by %s\n", right, decision.Allow, p.ref.Rule(decision.Rule).Text)
		}
	}
}

// shrink takes lines out of the policies for as long as the kernel, asked again,
// and the reference still disagree. Accesses that may have changed something are
// not asked again.
func (d *differential) shrink(p *agentPolicies, v *view, a *access, want bool) (*agentPolicies, []string) {
	repeatable := map[string]bool{"exec": true, "map": true, "protect": true, "connect": true, "chmod": true, "chown": true, "utimes": true, "setxattr": true, "truncate": true}
	if !repeatable[a.call[0]] && (a.call[0] != "open" || strings.Contains(a.call[2], "creat")) {
		return p, p.texts
	}
	for again := true; again; {
		again = false
		for _, texts := range withoutOneLine(p.texts) {
			if smaller := d.stillWrong(p.agent, texts, v, a); smaller != nil {
				p, again = smaller, true
				break
			}
		}
	}
	return p, p.texts
}

// withoutOneLine lists what remains when one line of a list, or one document, goes.
func withoutOneLine(texts []string) (smaller [][]string) {
	for i, text := range texts {
		rest := append(append([]string{}, texts[:i]...), texts[i+1:]...)
		if len(rest) > 0 {
			smaller = append(smaller, rest)
		}
		lines := strings.SplitAfter(text, "\n")
		for j, line := range lines {
			if strings.HasPrefix(line, "    - ") {
				fewer := append([]string{}, texts...)
				fewer[i] = strings.Join(lines[:j], "") + strings.Join(lines[j+1:], "")
				smaller = append(smaller, fewer)
			}
		}
	}
	return smaller
}

// stillWrong returns the policies of some texts if the kernel is still wrong under them.
func (d *differential) stillWrong(agent string, texts []string, v *view, a *access) *agentPolicies {
	p := &agentPolicies{agent: agent, texts: texts}
	for _, text := range texts {
		docs, problems := policy.Parse("smaller.yaml", []byte(text))
		if problems.Has(policy.Error) {
			return nil
		}
		p.docs = append(p.docs, docs...)
	}
	if p.compile() != nil {
		return nil
	}
	if _, err := d.k.Apply(Set{Rulesets: []*policy.Ruleset{p.set}, Agents: map[string]string{testSubject: agent}}); err != nil {
		d.t.Fatalf("apply: %v", err)
	}
	want := true
	for _, s := range a.steps {
		want = want && p.allows(s)
	}
	var errno int
	if _, err := fmt.Sscan(v.session.do("perform", strings.Join(a.call, "\x00")).Value, &errno); err != nil {
		d.t.Fatal(err)
	}
	d.k.told(d.t, time.Millisecond)
	if got, sure := verdictOf(syscall.Errno(errno)); sure && got == want {
		return nil
	}
	return p
}
