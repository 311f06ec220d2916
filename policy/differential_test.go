// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

const testAgent = "spiffe://local/agent/a"

// generator makes small random policies whose rules meet often.
type generator struct{ *rand.Rand }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

func (g generator) component() string {
	return pick(g, "a", "b", "ab", ".env", "a", "b", "*", "**", "a*", "*b", "?", "*.env", "a?*", `a\*`, "*a*b*", `a\**`, `\a?`)
}

func (g generator) path() string {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString("/" + g.component())
	}
	if g.IntN(20) == 0 {
		return "/"
	}
	return b.String()
}

func (g generator) fileLine(words ...string) string {
	access := pick(g, "read", "write", "create", "read, execute", "read, write, delete")
	return fmt.Sprintf("    - {path: '%s', %s: [%s]}\n", g.path(), pick(g, words...), access)
}

func (g generator) networkLine(words ...string) string {
	target := pick(g,
		"cidr: 10.0.0.0/8", "cidr: 10.1.0.0/16", "cidr: 0.0.0.0/0", "ip: 10.1.2.3", "ip: 10.1.2.4", "ip: 169.254.169.254",
		"cidr: '::/0'", "cidr: 'fd00::/8'", "ip: 'fd00::1'", "cidr: '::ffff:10.1.0.0/112'", "cidr: 169.254.0.0/16")
	ports := pick(g, "", ", ports: [80]", ", ports: [443, 8000-8100]", ", ports: [79-81]", ", ports: [1-65535]")
	protocol := pick(g, "", ", protocol: udp", ", protocol: any", ", protocol: tcp")
	word := pick(g, words...)
	if g.IntN(4) == 0 {
		return fmt.Sprintf("    - {%s: listen%s%s, %s}\n", word, ports, protocol, target)
	}
	if g.IntN(4) == 0 {
		return fmt.Sprintf("    - {%s: connect, unix: '%s'}\n", word, pick(g, g.path(), "@a", "@a*", "@*", "@/a/b"))
	}
	return fmt.Sprintf("    - {%s: connect, %s%s%s}\n", word, target, ports, protocol)
}

func (g generator) document(kind string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: bailiff.dev/v1alpha1\nkind: %s\nmetadata: {name: d%d}\nspec:\n", kind, n)
	words := []string{"deny"}
	if kind == "Guardrail" {
		b.WriteString("  subjects: ['spiffe://local/*']\n")
	} else {
		words = append(words, "allow", "allow")
		b.WriteString("  subject: {spiffeID: a}\n")
	}
	g.section(&b, "files", func() string { return g.fileLine(words...) })
	g.section(&b, "network", func() string { return g.networkLine(words...) })
	return b.String()
}

func (g generator) section(b *strings.Builder, name string, line func() string) {
	if count := g.IntN(9); count > 0 {
		b.WriteString("  " + name + ":\n")
		for range count {
			b.WriteString(line())
		}
	}
}

// documents returns random documents that together pass Check. Lines that
// clash, or say the same twice, are drawn again.
func (g generator) documents(t *testing.T) []Document {
	var docs []Document
	for n := range 1 + g.IntN(3) {
		kind := "AgentPolicy"
		if n > 0 && g.IntN(3) == 0 {
			kind = "Guardrail"
		}
		for {
			text := g.document(kind, n)
			parsed, ps := Parse("random.yaml", []byte(text))
			if !ps.Has(Error) {
				docs = append(docs, parsed...)
				break
			}
			for _, p := range ps {
				if p.Severity == Error && !strings.Contains(p.Message, "twice") && !strings.Contains(p.Message, "allow and deny") &&
					!strings.Contains(p.Message, "both allowed and denied") && !strings.Contains(p.Message, "repeats") && !strings.Contains(p.Message, "outrank") {
					t.Fatalf("%s\n%s", p, text)
				}
			}
		}
	}
	return docs
}

// makeFiles turns some lines into file lines, as presets have them.
func (g generator) makeFiles(docs []Document) {
	for i := range docs {
		for j := range docs[i].Policy.Files {
			p := &docs[i].Policy.Files[j].pattern
			p.file = len(p.components) > 0 && g.IntN(6) == 0
		}
	}
}

func (g generator) components() []string {
	if g.IntN(8) == 0 {
		return []string{abstractName, pick(g, "a", "ab", "b", "/a/b", "a*")}
	}
	var path []string
	for range g.IntN(6) {
		path = append(path, pick(g, "a", "b", "ab", "abb", ".env", "x.env", "c", "aab", "a*", "a*b", "bxaxb"))
	}
	return path
}

// TestCompiledAgreesWithReference compares the two on random policies, paths and
// addresses.
func TestCompiledAgreesWithReference(t *testing.T) {
	policies := 2000
	if testing.Short() {
		policies = 300
	}
	g := generator{rand.New(rand.NewPCG(1, 2))}
	for range policies {
		docs := g.documents(t)
		g.makeFiles(docs)
		ref, err := NewReference(testAgent, docs)
		if err != nil {
			t.Fatal(err)
		}
		compiled, ps := Compile(testAgent, docs)
		if compiled == nil {
			t.Fatal(ps)
		}
		for range 60 {
			comparePath(t, ref, compiled, g.components())
			compareNet(t, g, ref, compiled)
		}
	}
}

func compareNet(t *testing.T, g generator, ref *Reference, r *Ruleset) {
	t.Helper()
	addr := netip.MustParseAddr(pick(g, "10.1.2.3", "10.1.2.4", "10.1.9.9", "10.2.0.1", "8.8.8.8", "::1", "fd00::1", "fd00::2", "::ffff:10.1.2.3", "169.254.169.254", "169.254.1.1"))
	port := pick[uint16](g, 0, 79, 80, 81, 443, 444, 7999, 8000, 8050, 8100, 8101, 65535)
	compareAddress(t, ref, r, addr, port, g)
}
