// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"reflect"
	"slices"
	"testing"

	"bailiff.dev/bailiff/policy"
)

const threeDocuments = `# a comment above
---
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: one}
spec:
  subject: {spiffeID: one}
  files:
    - {path: /a, allow: [read]}
--- # with a comment
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: two}
spec:
  subject: {spiffeID: two}
  files:
    - {path: "/b/---", allow: [read]}
---
---
apiVersion: bailiff.dev/v1alpha1
kind: Guardrail
metadata: {name: three}
spec:
  subjects: ["spiffe://local/*"]
  files:
    - {path: /c, deny: [read]}
`

// What is cut out of a file parses alone to the same document, at the same place.
func TestSplit(t *testing.T) {
	docs, problems := policy.Parse("f.yaml", []byte(threeDocuments))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	stored := split("f.yaml", threeDocuments, docs, true)
	if len(stored) != len(docs) || len(docs) != 3 {
		t.Fatalf("%d documents were split into %d: %+v", len(docs), len(stored), stored)
	}
	for i, s := range stored {
		if s.Name != docs[i].Name || !s.AcceptDegraded {
			t.Errorf("document %d is stored as %+v", i, s)
		}
		again, problems := s.parse()
		if err := problems.Err(); err != nil || len(again) != 1 {
			t.Fatalf("%s: parsed again: %v, %d documents", s.Name, err, len(again))
		}
		if again[0].Name != docs[i].Name || again[0].Pos != docs[i].Pos {
			t.Errorf("%s at %v became %s at %v", docs[i].Name, docs[i].Pos, again[0].Name, again[0].Pos)
		}
		if a, b := again[0].Files()[0].Pos, docs[i].Files()[0].Pos; a != b {
			t.Errorf("%s: its first rule moved from %v to %v", s.Name, b, a)
		}
		for j, other := range stored {
			if other.holds(docs[i].Pos) != (i == j) {
				t.Errorf("%s holds the place of %s: %v", other.Name, docs[i].Name, i != j)
			}
		}
	}
}

func TestMerge(t *testing.T) {
	p := &policies{stored: storedPolicies{storedSet: storedSet{Documents: []storedDocument{{Name: "a", Text: "old"}, {Name: "b", Text: "old"}}}}}
	for _, c := range []struct {
		name    string
		fresh   []storedDocument
		replace bool
		want    []storedDocument
	}{
		{"add", []storedDocument{{Name: "c"}}, false, []storedDocument{{Name: "a", Text: "old"}, {Name: "b", Text: "old"}, {Name: "c"}}},
		{"change", []storedDocument{{Name: "a", Text: "new"}}, false, []storedDocument{{Name: "a", Text: "new"}, {Name: "b", Text: "old"}}},
		{"replace", []storedDocument{{Name: "c"}}, true, []storedDocument{{Name: "c"}}},
	} {
		got := p.merge(c.fresh, c.replace).Documents
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %+v, want %+v", c.name, got[i], c.want[i])
			}
		}
	}
}

// An event is explained by the rules of its own generation, as long as they are remembered.
func TestHistory(t *testing.T) {
	agent := "spiffe://local/agent/a"
	sets := func(n int) map[string]*policy.Ruleset {
		return map[string]*policy.Ruleset{agent: {Agent: agent, Rules: make([]policy.Rule, n)}}
	}
	p := &policies{}
	for g := range maxHistory + 10 {
		p.remember(past{uint64(g + 1), sets(g + 1), []string{agent}})
	}
	for generation, want := range map[uint64]int{maxHistory + 10: maxHistory + 10, maxHistory + 11: maxHistory + 10, 12: 12} {
		if r := p.ruleset(agent, generation); r == nil || len(r.Rules) != want {
			t.Errorf("generation %d: %v", generation, r)
		}
	}
	if r := p.ruleset(agent, 3); r != nil {
		t.Errorf("generation 3 is long gone, and yet explained by %v", r)
	}
	p.forget(maxHistory + 10)
	if r := p.ruleset(agent, maxHistory+10); len(r.Rules) != maxHistory+9 {
		t.Errorf("a generation that never came is remembered")
	}
	if r := p.ruleset("spiffe://local/agent/b", 20); r != nil {
		t.Errorf("another agent is explained by %v", r)
	}
}

// What a file's documents came to is kept, and comes to the same when they are
// read from the store again, together or, where they are of two versions of the
// file, one by one.
func TestParseAll(t *testing.T) {
	docs, problems := policy.Parse("f.yaml", []byte(threeDocuments))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	stored := split("f.yaml", threeDocuments, docs, false)
	other := split("f.yaml", threeDocuments, docs, false)[1:2]
	for _, documents := range [][]storedDocument{stored, append(slices.Clone(stored), other...)} {
		var kept []*parsed
		for i := range documents {
			kept = append(kept, documents[i].parsed)
			documents[i].parsed = nil
		}
		for i, p := range parseAll(documents) {
			if p != documents[i].parsed || !reflect.DeepEqual(p.docs, kept[i].docs) || len(p.problems) != 0 {
				t.Errorf("document %d: %+v, %v", i, p.docs, p.problems)
			}
			if j := owners(pointers(stored))(p.docs[0].Pos); stored[j].Name != p.docs[0].Name {
				t.Errorf("document %d is found in %q", i, stored[j].Name)
			}
		}
	}
}

// What was said when other policies were applied is not said again; what comes of
// the new ones is.
func TestProblemsThatAreNews(t *testing.T) {
	at := func(file string, line int, message string) policy.Problem {
		return policy.Problem{Severity: policy.Degraded, Pos: policy.Position{File: file, Line: line, Column: 1}, Message: message}
	}
	p := &policies{problems: policy.Problems{at("old", 2, "as before"), at("new", 2, "said before")}}
	got := p.news(policy.Problems{at("old", 2, "as before"), at("old", 3, "comes of the new one"), at("new", 2, "said before")},
		[]storedDocument{{Name: "n", File: "new", Text: "a\nb\nc"}})
	if len(got) != 2 || got[0].Message != "comes of the new one" || got[1].Message != "said before" {
		t.Errorf("%v", got)
	}
}
