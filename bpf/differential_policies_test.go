// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"bailiff.dev/bailiff/policy"
)

// generator draws policies, trees and accesses. The same seed draws the same.
type generator struct{ *rand.Rand }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

// chance is true in one of n cases.
func (g generator) chance(n int) bool { return g.IntN(n) == 0 }

// longName is one that the programs hash in another way than short ones.
const longName = "a-name-of-more-than-thirty-one-bytes.env"

// name draws the name of something in a tree: few, so that rules meet them.
func (g generator) name() string {
	return pick(g, "a", "b", "ab", "abb", ".env", "x.env", "c", "a*", "aé?\n", longName)
}

func (g generator) component() string {
	return pick(g, "a", "b", "ab", ".env", "a", "b", "x.env", "abb", longName, `a\*`,
		"*", "**", "a*", "*b", "?", "*.env", "a?*", "*a*b*", "*-*.env", "c", "*")
}

// pattern draws a path below one of some directories, or rarely one above them.
func (g generator) pattern(bases []string) string {
	base := pick(g, bases...)
	if g.chance(12) {
		base = pick(g, "", "/**", base[:strings.LastIndexByte(base, '/')], base[:strings.LastIndexByte(base, '/')]+"/*")
	}
	var b strings.Builder
	b.WriteString(base)
	for range g.IntN(5) {
		b.WriteString("/" + g.component())
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// words draws some of the five access words.
func (g generator) words() string {
	if g.chance(3) {
		return "read, write, create, delete, execute"
	}
	all := []string{"read", "write", "create", "delete", "execute"}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:1+g.IntN(len(all))], ", ")
}

func (g generator) fileLine(bases []string, verb string) string {
	return fmt.Sprintf("{path: '%s', %s: [%s]}", g.pattern(bases), verb, g.words())
}

func (g generator) unixLine(bases []string, verb string) string {
	name := g.pattern(bases)
	if g.chance(4) {
		name = pick(g, "@bailiff-a", "@bailiff-*", "@bailiff-?b", "@*")
	}
	return fmt.Sprintf("{%s: connect, unix: '%s'}", verb, name)
}

// document draws one document until it passes the check.
func (g generator) document(name, agent string, guard bool, bases []string) (string, []policy.Document) {
	for {
		mode := pick(g, "enforce", "enforce", "enforce", "audit")
		text := fmt.Sprintf("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: %s}\nspec:\n  subject: {spiffeID: %s}\n  mode: %s\n",
			name, agent, mode)
		verbs := []string{"allow", "allow", "deny"}
		var files, network []string
		if guard {
			text = fmt.Sprintf("apiVersion: bailiff.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: %s}\nspec:\n  subjects: ['%s']\n", name, agent)
			verbs = []string{"deny"}
		} else if !g.chance(4) { // else little would be allowed at all
			files = append(files, fmt.Sprintf("{path: '%s', allow: [%s]}", pick(g, bases...), g.words()))
		}
		for range g.IntN(8) {
			files = append(files, g.fileLine(bases, pick(g, verbs...)))
		}
		for range g.IntN(3) {
			network = append(network, g.unixLine(bases, pick(g, verbs...)))
		}
		text += section("files", files) + section("network", network)
		docs, problems := policy.Parse(name+".yaml", []byte(text))
		if !problems.Has(policy.Error) {
			return text, docs
		}
	}
}

// agentPolicies are the documents about one agent, and what they come to.
type agentPolicies struct {
	agent string
	texts []string
	docs  []policy.Document
	ref   *policy.Reference
	set   *policy.Ruleset
}

// policies draws the documents about an agent.
func (g generator) policies(number int, bases []string) (*agentPolicies, error) {
	p := &agentPolicies{agent: fmt.Sprintf("spiffe://local/agent/p%d", number)}
	for i := range 1 + g.IntN(3) {
		text, docs := g.document(fmt.Sprintf("p%d-%d", number, i), p.agent, i > 0 && g.chance(2), bases)
		p.texts, p.docs = append(p.texts, text), append(p.docs, docs...)
	}
	return p, p.compile()
}

func (p *agentPolicies) compile() (err error) {
	if p.ref, err = policy.NewReference(p.agent, p.docs); err != nil {
		return err
	}
	set, problems := policy.Compile(p.agent, p.docs)
	if err := problems.Err(); err != nil {
		return err
	}
	p.set = set
	return nil
}

func (p *agentPolicies) yaml() string { return strings.Join(p.texts, "---\n") }
