// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// largePolicy has as many rules as a document may have: files in directories,
// with a few wildcards above them all.
func largePolicy() []byte {
	var b strings.Builder
	b.WriteString("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: large}\nspec:\n  subject: {spiffeID: a}\n  files:\n")
	wild := []string{"/srv/**/.env", "/srv/**/*.pem", "/srv/**/id_*", "/**/.netrc"}
	for _, p := range wild {
		fmt.Fprintf(&b, "    - {path: '%s', deny: [read, write]}\n", p)
	}
	for i := range MaxRules - len(wild) {
		fmt.Fprintf(&b, "    - {path: /srv/data/d%d/file-%d, allow: [read]}\n", i%500, i)
	}
	return []byte(b.String())
}

func TestLargestPolicyCompiles(t *testing.T) {
	docs, ps := Parse("large.yaml", largePolicy())
	if len(ps) > 0 {
		t.Fatal(ps[0])
	}
	r, ps := Compile(testAgent, docs)
	if r == nil {
		t.Fatal(ps)
	}
	for path, want := range map[string]Access{
		"srv/data/d7/file-507":      Read,
		"srv/data/d7/file-507/deep": Read,
		"srv/data/d7/file-508":      0,
		"srv/data/d7/file-507/.env": 0,
	} {
		if got := r.Files.States[r.Files.Walk(strings.Split(path, "/"))].Allow; got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	again, _ := Compile(testAgent, docs)
	if again.Digest != r.Digest {
		t.Error("compiling twice gives different digests")
	}
	t.Logf("%d states, %d edges, %d glob edges, %d glob nodes", len(r.Files.States), len(r.Files.Edges), len(r.Files.GlobEdges), len(r.Files.Globs))
}

func TestTooManyRulesIsAnError(t *testing.T) {
	docs, ps := Parse("large.yaml", append(largePolicy(), "    - {path: /one, allow: [read]}\n"...))
	if len(docs) > 0 || len(ps) != 1 || !strings.Contains(ps[0].String(), "large.yaml:5:3: error: the document has 100001 rules, more than the 100000 possible; split it") {
		t.Errorf("got %v", ps)
	}
}

func TestNetTableLimits(t *testing.T) {
	var many []netRule
	for i := range MaxPrefixes + 1 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		many = append(many, netRule{prefixes: []netip.Prefix{netip.PrefixFrom(addr, 32)}, ports: []PortSpan{{1, 2}}, transports: []Transport{TCP}})
	}
	if _, err := buildNetTable(many); !errors.Is(err, errTooManyPrefixes) {
		t.Errorf("prefixes: %v", err)
	}
	if _, err := buildNetTable(many[1:]); err != nil {
		t.Errorf("as many prefixes as may be: %v", err)
	}
	for i := range many {
		many[i].number = RuleNumber(i)
		many[i].ports = []PortSpan{{1, 1}, {3, 3}, {5, 5}}
	}
	if _, err := buildNetTable(many[1:]); !errors.Is(err, errTooManyRanges) {
		t.Errorf("ranges: %v", err)
	}
}

func TestTooManyStatesIsAnError(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: wide}\nspec:\n  subject: {spiffeID: a}\n  files:\n")
	for i := range MaxRules {
		fmt.Fprintf(&b, "    - {path: /srv/%d/v/w/x/y, allow: [read]}\n", i)
	}
	docs, ps := Parse("wide.yaml", []byte(b.String()))
	if len(ps) > 0 {
		t.Fatal(ps[0])
	}
	r, ps := Compile(testAgent, docs)
	if r != nil || len(ps) != 1 || !strings.Contains(ps[0].String(), `wide.yaml:7:7: error: policy "wide" is too large to compile: more than 400000 states`) {
		t.Fatalf("got %v", ps)
	}
}
