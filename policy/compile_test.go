// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mustParse parses documents in which nothing is wrong.
func mustParse(t *testing.T, text string) []Document {
	t.Helper()
	docs, ps := Parse("f.yaml", []byte(text))
	if ps.Has(Error) {
		t.Fatalf("%v\n%s", ps, text)
	}
	return docs
}

func mustCompile(t *testing.T, text string) *Ruleset {
	t.Helper()
	r, ps := Compile(testAgent, mustParse(t, text))
	if r == nil {
		t.Fatal(ps)
	}
	return r
}

func policyText(name, mode, lines string) string {
	text := strings.Replace(head, "name: p", "name: "+name, 1)
	if mode != "" {
		text += "  mode: " + mode + "\n"
	}
	return text + lines
}

// TestPrecedence spells out the words of the package comment.
func TestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		path  string
		want  Access
	}{
		{"default deny", []string{`{path: /a, allow: [read]}`}, "/b", 0},
		{"covers below", []string{`{path: /a, allow: [read]}`}, "/a/b/c", Read},
		{"root covers all", []string{`{path: /, allow: [read]}`}, "/a", Read},
		{"deeper deny", []string{`{path: /a, allow: [read]}`, `{path: /a/b, deny: [read]}`}, "/a/b/c", 0},
		{"deeper allow", []string{`{path: /a, deny: [read]}`, `{path: /a/b, allow: [read]}`}, "/a/b/c", Read},
		{"rights apart", []string{`{path: /a, allow: [read, write]}`, `{path: /a/b, deny: [write]}`}, "/a/b", Read},
		{"exact beats pattern", []string{`{path: /a/b, allow: [read]}`, `{path: "/a/*", deny: [read]}`}, "/a/b", Read},
		{"pattern elsewhere is a pattern", []string{`{path: "/*/b", allow: [read]}`, `{path: /a/b, deny: [read]}`}, "/a/b", 0},
		{"patterns tie", []string{`{path: "/a/*b", allow: [read]}`, `{path: "/a/b*", deny: [read]}`}, "/a/bb", 0},
		{"deep pattern beats shallow exact", []string{`{path: /a, allow: [read]}`, `{path: "/**/.env", deny: [read]}`}, "/a/x/y/.env", 0},
		{"stars match nothing", []string{`{path: "/a/**/b", allow: [read]}`}, "/a/b", Read},
		{"deepest of several matches", []string{`{path: "/**/x", allow: [read]}`, `{path: /x/y, deny: [read]}`}, "/x/y/x", Read},
		{"final stars are one star", []string{`{path: "/a/**", allow: [read]}`}, "/a", 0},
		{"final stars cover below", []string{`{path: "/a/**", allow: [read]}`, `{path: /a/b/c, deny: [read]}`}, "/a/b/c", 0},
		{"question mark", []string{`{path: "/a?", allow: [read]}`}, "/ab", Read},
		{"question mark needs a byte", []string{`{path: "/a?", allow: [read]}`}, "/a", 0},
		{"escape", []string{`{path: '/a\*', allow: [read]}`}, "/ab", 0},
		{"escaped", []string{`{path: '/a\*', allow: [read]}`}, "/a*", Read},
		{"hidden names", []string{`{path: "/*", allow: [read]}`}, "/.x", Read},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := mustCompile(t, head+"  files:\n    - "+strings.Join(tt.lines, "\n    - ")+"\n")
			if got := r.Rights(components(tt.path)); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
			}
		})
	}
}

func TestGuardrailHoldsDeeper(t *testing.T) {
	r := mustCompile(t, policyText("p", "audit", "  files:\n    - {path: /a/b/c, allow: [read, write]}\n")+"---\n"+
		guardHead+"  files:\n    - {path: /a, deny: [read]}\n")
	s := r.Files.States[r.Files.Walk(components("/a/b/c/d"))]
	if s.Allow != Write || s.Deny != Read || s.Guard != Read || r.Rules[s.Rule[0]].ID != "g/files/0" || r.Rules[s.Rule[1]].ID != "p/files/0" {
		t.Errorf("state %+v", s)
	}
	if !r.Audit {
		t.Error("the only policy says audit")
	}
}

func TestAuditNeedsAllPolicies(t *testing.T) {
	for _, modes := range [][2]string{{"audit", ""}, {"enforce", "audit"}} {
		if r := mustCompile(t, policyText("p", modes[0], "")+"---\n"+policyText("q", modes[1], "")); r.Audit {
			t.Errorf("%q: one policy is enforced, so the agent is", modes)
		}
	}
}

func TestAbstractSocketsAreApart(t *testing.T) {
	r := mustCompile(t, head+"  files:\n    - {path: /, allow: [read]}\n  network:\n    - {allow: connect, unix: /}\n    - {allow: connect, unix: \"@x/*\"}\n")
	for _, tt := range []struct {
		path []string
		want Access
	}{
		{[]string{"run", "s"}, Read | Connect},
		{[]string{abstractName, "y"}, 0},
		{[]string{abstractName, "x/1/2"}, Connect},
	} {
		if got := r.Rights(tt.path); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.path, got, tt.want)
		}
	}
	if all := r.Files.States[r.Files.Start].All; all != Read|Connect {
		t.Errorf("everything below / is allowed %s", all)
	}
}

// TestAnyAndAll compares the summaries with a plain search from every state.
func TestAnyAndAll(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	for range 200 {
		r, _ := Compile(testAgent, g.documents(t))
		next := r.Files.successors()
		for s := range r.Files.States {
			var union Access
			all := ^Access(0)
			seen := make([]bool, len(next))
			for todo := []uint32{uint32(s)}; len(todo) > 0; {
				at := todo[0]
				todo = todo[1:]
				if seen[at] {
					continue
				}
				seen[at] = true
				union |= r.Files.States[at].Allow
				all &= r.Files.States[at].Allow
				todo = append(todo, next[at]...)
			}
			if got := r.Files.States[s]; got.Any != union || got.All != all {
				t.Fatalf("state %d: any %s, all %s; want %s, %s", s, got.Any, got.All, union, all)
			}
		}
	}
}

func TestAnyAndAllOfACycle(t *testing.T) {
	a := Automaton{States: []State{
		{Default: 1, Allow: Read | Write},
		{Default: 2, Allow: Read | Create},
		{Default: 0, Allow: Read | Delete},
	}}
	a.summarize()
	for i, s := range a.States {
		if s.Any != Read|Write|Create|Delete || s.All != Read {
			t.Errorf("state %d: any %s, all %s", i, s.Any, s.All)
		}
	}
}

func TestAnyAndAllOfTheRoot(t *testing.T) {
	r := mustCompile(t, head+"  files:\n    - {path: /, allow: [read, write]}\n    - {path: /a/b, deny: [read]}\n    - {path: /c, allow: [execute]}\n")
	s := r.Files.States[r.Files.Start]
	if s.Any != Read|Write|Execute || s.All != Write {
		t.Errorf("any %s, all %s", s.Any, s.All)
	}
}

func TestAutomatonIsSorted(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(5, 6))}
	for range 200 {
		r, _ := Compile(testAgent, g.documents(t))
		edges := slices.IsSortedFunc(r.Files.Edges, func(a, b Edge) int { return compareEdge(a.From, b.From, a.Name, b.Name) })
		globs := slices.IsSortedFunc(r.Files.GlobEdges, func(a, b GlobEdge) int { return compareEdge(a.From, b.From, a.Class, b.Class) })
		if !edges || !globs {
			t.Fatalf("sorted: %v, %v", edges, globs)
		}
	}
}

func TestMetadata(t *testing.T) {
	addr := netip.MustParseAddr("169.254.169.254")
	for _, tt := range []struct {
		name, lines string
		port        uint16
		want        bool
		rule        string
	}{
		{"denied in a wider network", "{allow: connect, cidr: 0.0.0.0/0}", 80, false, "builtin/metadata/0"},
		{"denied in its link", "{allow: connect, cidr: 169.254.0.0/16}", 80, false, "builtin/metadata/0"},
		{"named", "{allow: connect, ip: 169.254.169.254, ports: [80]}", 80, true, "p/network/0"},
		{"named, another port", "{allow: connect, ip: 169.254.169.254, ports: [80]}\n    - {allow: connect, cidr: 0.0.0.0/0}", 81, false, "builtin/metadata/0"},
		{"named as mapped", `{allow: connect, ip: "::ffff:169.254.169.254"}`, 80, true, "p/network/0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := mustCompile(t, network(tt.lines))
			got, ok := r.Net.Lookup(Outbound, addr, tt.port, TCP)
			if !ok || got.Allow != tt.want || r.Rules[got.Rule].ID != tt.rule {
				t.Errorf("%+v by %s", got, r.Rules[got.Rule].ID)
			}
		})
	}
}

func TestDefaultProtocols(t *testing.T) {
	r := mustCompile(t, head+"  network:\n    - {allow: connect, ip: 10.0.0.1, protocol: any}\n    - {allow: connect, ip: 10.0.0.2}\n    - {allow: connect, cidr: 10.0.0.0/8, protocol: any}\n    - {deny: connect, ip: 10.0.0.3}\n    - {allow: listen, ports: [53]}\n    - {allow: connect, to: self}\n")
	for _, tt := range []struct {
		addr      string
		transport Transport
		want      bool
	}{
		{"10.0.0.1", UDP, true}, {"10.0.0.2", TCP, true}, {"10.0.0.3", TCP, false}, {"10.0.0.3", UDP, false}, {"fd00::1", TCP, false},
	} {
		if got, _ := r.Net.Lookup(Outbound, netip.MustParseAddr(tt.addr), 9, tt.transport); got.Allow != tt.want {
			t.Errorf("%s/%d: %v", tt.addr, tt.transport, got.Allow)
		}
	}
	for _, a := range []string{"127.0.0.1", "::"} {
		if got, _ := r.Net.Lookup(Inbound, netip.MustParseAddr(a), 53, TCP); !got.Allow {
			t.Errorf("listening on %s is denied", a)
		}
	}
	if r.Rules[r.Self].ID != "p/network/5" {
		t.Errorf("self is rule %s", r.Rules[r.Self].ID)
	}
}

func TestEnvironment(t *testing.T) {
	r := mustCompile(t, policyText("p", "", "  presets: [git]\n  environment: {drop: [SSH_*], set: {A: x}}\n")+"---\n"+policyText("q", "", ""))
	for name, want := range map[string]bool{"SSH_AUTH_SOCK": true, "GH_TOKEN": true, "AWS_REGION": true, "PATH": false} {
		if r.Env.Drops(name) != want {
			t.Errorf("%s: dropped is %v", name, !want)
		}
	}
	if r.Env.Set["A"] != "x" || len(r.Env.Set) != 2 {
		t.Errorf("set is %v", r.Env.Set)
	}
	if r := mustCompile(t, policyText("p", "", "  environment: {drop: []}\n")); len(r.Env.Drop) != 0 {
		t.Errorf("an empty drop list drops %v", r.Env.Drop)
	}
	docs := mustParse(t, policyText("p", "", "  environment: {set: {A: x}}\n")+"---\n"+policyText("q", "", "  environment: {set: {A: y}}\n"))
	r, ps := Compile(testAgent, docs)
	if r != nil || !strings.Contains(ps.Err().Error(), `f.yaml:13:16: error: environment.set gives A another value than policy "p"`) {
		t.Errorf("got %v", ps)
	}
}

func TestDigestIgnoresOrderAndPlace(t *testing.T) {
	a := policyText("p", "", "  files:\n    - {path: /a, allow: [read]}\n")
	b := policyText("q", "", "  files:\n    - {path: /b, allow: [read]}\n")
	first, second := mustCompile(t, a+"---\n"+b), mustCompile(t, "# moved\n\n"+b+"---\n"+a)
	if first.Digest != second.Digest {
		t.Error("the same policies have different digests")
	}
	if other := mustCompile(t, a+"---\n"+strings.Replace(b, "read", "write", 1)); other.Digest == first.Digest {
		t.Error("different policies have the same digest")
	}
}

// TestDigestCoversWhatDecides changes one thing at a time.
func TestDigestCoversWhatDecides(t *testing.T) {
	text := head + "  files:\n    - {path: /a, allow: [read]}\n    - {path: \"/b/x*\", allow: [read]}\n  network:\n    - {allow: connect, ip: 10.0.0.1, ports: [1]}\n  environment: {set: {A: x}}\n"
	digests := map[[32]byte]string{mustCompile(t, text).Digest: "unchanged"}
	for name, change := range map[string]func(r *Ruleset){
		"agent":       func(r *Ruleset) { r.Agent += "x" },
		"audit":       func(r *Ruleset) { r.Audit = true },
		"rule id":     func(r *Ruleset) { r.Rules[1].ID = "other" },
		"rule policy": func(r *Ruleset) { r.Rules[1].Policy = "other" },
		"rule text":   func(r *Ruleset) { r.Rules[1].Text = "other" },
		"rule guard":  func(r *Ruleset) { r.Rules[1].Guard = true },
		"rule deny":   func(r *Ruleset) { r.Rules[1].Deny = true },
		"self":        func(r *Ruleset) { r.Self = 1 },
		"default":     func(r *Ruleset) { r.Files.States[0].Default++ },
		"rights":      func(r *Ruleset) { r.Files.States[0].Allow = Write },
		"decided by":  func(r *Ruleset) { r.Files.States[0].Rule[2] = 1 },
		"edge name":   func(r *Ruleset) { r.Files.Edges[1].Name = "z" },
		"edge to":     func(r *Ruleset) { r.Files.Edges[1].To++ },
		"glob edge":   func(r *Ruleset) { r.Files.GlobEdges[0].To++ },
		"glob node":   func(r *Ruleset) { r.Files.Globs[1].Next['q']++ },
		"direction":   func(r *Ruleset) { r.Net.Prefixes[0].Direction = Inbound },
		"prefix":      func(r *Ruleset) { r.Net.Prefixes[0].Prefix = allIPv4() },
		"port set":    func(r *Ruleset) { r.Net.Prefixes[0].Ports++ },
		"port":        func(r *Ruleset) { r.Net.PortSets[0][0].High++ },
		"port rule":   func(r *Ruleset) { r.Net.PortSets[0][0].Rule++ },
		"drop":        func(r *Ruleset) { r.Env.Drop[0] = "X" },
		"set":         func(r *Ruleset) { r.Env.Set["A"] = "y" },
	} {
		r := mustCompile(t, text)
		change(r)
		d := r.digest()
		if other, ok := digests[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		digests[d] = name
	}
}

func TestNoPolicy(t *testing.T) {
	docs := mustParse(t, guardHead)
	if r, ps := Compile(testAgent, docs); r != nil || !strings.Contains(ps.Err().Error(), "no AgentPolicy is about") {
		t.Errorf("got %v, %v", r, ps)
	}
	if _, err := NewReference(testAgent, docs); err == nil {
		t.Error("a reference without a policy")
	}
}

func TestHostIsUnsupportedWhereverItIsCompiled(t *testing.T) {
	r, ps := Compile(testAgent, mustParse(t, network("{allow: connect, host: \"*.example.org\", ports: [443]}")))
	if r == nil || !ps.Has(Unsupported) {
		t.Errorf("got %v", ps)
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	var all []Document
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, ps := Parse(file, text)
		if len(ps) > 0 || len(docs) != 1 {
			t.Errorf("%d documents, %v", len(docs), ps)
		}
		all = append(all, docs...)
	}
	rulesets, ps := CompileAll(all)
	if len(ps) > 0 || len(rulesets) != 2 {
		t.Fatalf("%d rulesets, %v", len(rulesets), ps)
	}
	agent := rulesets[0]
	for path, want := range map[string]Access{
		"/srv/agent/work/repo/a.py":            fileAccess,
		"/srv/agent/work/repo/.git/hooks/x":    Read | Execute,
		"/srv/agent/work/repo/.git/config":     fileAccess,
		"/srv/agent/work/repo/.env":            0,
		"/srv/agent/work/.ssh/id_ed25519":      0,
		"/root/.ssh/id_ed25519":                0,
		"/usr/lib/x86_64-linux-gnu/libc.so.6":  Read | Execute,
		"/run/docker.sock":                     0,
		"/usr/bin/python3.11":                  Read | Execute,
		"/srv/agent/remote/project/.git/hooks": Read,
	} {
		if got := agent.Rights(components(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
