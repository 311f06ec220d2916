// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// generator makes small random policies about a tree, whose rules meet often.
type generator struct {
	*rand.Rand
	root string
}

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

func (g generator) line(deny bool) string {
	var b strings.Builder
	b.WriteString(g.root)
	for range g.IntN(4) {
		b.WriteString("/" + pick(g, "a", "b", "ab", ".env", "a", "b", "*", "**", "a*", "*b", "?", "*.env", "a?*", "*a*b*", "new"))
	}
	word := "allow"
	if deny || g.IntN(3) == 0 {
		word = "deny"
	}
	return fmt.Sprintf("{path: '%s', %s: [%s]}", b.String(), word, pick(g, "read", "write", "create", "read, execute", "read, write, create", "read, write"))
}

// rules draws until the documents pass the check.
func (g generator) rules() (rules, []policy.Document) {
	for {
		var r rules
		for range 1 + g.IntN(8) {
			r.files = append(r.files, g.line(false))
		}
		for range g.IntN(3) {
			r.guard = append(r.guard, g.line(true))
		}
		docs, problems := policy.Parse("random.yaml", []byte(r.yaml()))
		if !problems.Has(policy.Error) {
			return r, docs
		}
	}
}

// object is something in the tree, and a way to reach for it.
type object struct {
	way, path string
	right     policy.Access
}

func (g generator) object() object {
	var b strings.Builder
	b.WriteString(g.root)
	for range 1 + g.IntN(3) {
		b.WriteString("/" + pick(g, names()...))
	}
	switch g.IntN(4) {
	case 0:
		return object{"r dir", b.String(), policy.Read}
	case 1:
		return object{"mkdir", b.String() + "/new", policy.Create}
	case 2:
		return object{"w", b.String() + "/" + pick(g, leaves()...), policy.Write}
	}
	return object{"r", b.String() + "/" + pick(g, leaves()...), policy.Read}
}

func names() []string  { return []string{"a", "b", "ab", "c", ".env"} }
func leaves() []string { return []string{"x.env", "abb"} }

func makeTree(dir string, depth int) {
	for _, leaf := range leaves() {
		touch(dir + "/" + leaf)
	}
	if depth == 0 {
		return
	}
	for _, name := range names() {
		makeTree(dir+"/"+name, depth-1)
	}
}

// The kernel and the reference evaluator answer alike.
func TestKernelAgreesWithReference(t *testing.T) {
	k := full(t)
	g := generator{rand.New(rand.NewPCG(3, 4)), kerneltest.TmpfsDir(t)}
	makeTree(g.root, 3)
	s := k.start(t, rules{})
	policies, objects := 200, 40
	if testing.Short() {
		policies = 30
	}
	allowed := 0
	for range policies {
		r, docs := g.rules()
		ref, err := policy.NewReference(testSubject, docs)
		if err != nil {
			t.Fatal(err)
		}
		k.apply(t, r)
		var calls []any
		var want strings.Builder
		tried := map[object]bool{}
		for range objects {
			o := g.object()
			if tried[o] {
				continue
			}
			tried[o] = true
			calls = append(calls, o.way+"\x00"+o.path)
			if ref.File(components(o.path), o.right).Allow {
				want.WriteByte('a')
				allowed++
			} else {
				want.WriteByte('d')
			}
		}
		got := s.allowed("verdicts", calls...).Value
		for i := range got {
			if got[i] != want.String()[i] {
				t.Fatalf("%q: kernel %c, reference %c\n%s", calls[i], got[i], want.String()[i], r.yaml())
			}
		}
		for o := range tried {
			if o.way == "mkdir" {
				os.Remove(o.path)
			}
		}
	}
	t.Logf("%d of about %d allowed", allowed, policies*objects)
}
