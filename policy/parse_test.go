// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

// head is the beginning of a policy; what follows starts at line 6, column 1.
const head = `apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: p}
spec:
  subject: {spiffeID: a}
`

const guardHead = `apiVersion: bailiff.dev/v1alpha1
kind: Guardrail
metadata: {name: g}
spec:
  subjects: ["spiffe://local/*"]
`

func files(line string) string   { return head + "  files:\n    - " + line + "\n" }
func network(line string) string { return head + "  network:\n    - " + line + "\n" }

// problemCase is a file and a part of what Parse says about it. There is one for
// each class of message.
type problemCase struct{ name, text, want string }

func documentProblems() []problemCase {
	return []problemCase{
		{"nothing", "# only a comment\n", `f.yaml:1:1: error: the file holds no document; start one with`},
		{"no YAML", "a: [1\nb: 2\n", `error: this is no YAML: `},
		{"tab", "a:\n\tb: 1\n", `f.yaml:2:1: error: this is no YAML: `},
		{"not a mapping", "- a\n", `f.yaml:1:1: error: a document must be a mapping, not a list; start with "apiVersion`},
		{"old version", strings.Replace(head, "v1alpha1", "v1", 1), `f.yaml:1:13: error: this build does not know apiVersion "bailiff.dev/v1"; write bailiff.dev/v1alpha1`},
		{"unknown kind", strings.Replace(head, "AgentPolicy", "AgentPolice", 1), `f.yaml:2:7: error: unknown kind "AgentPolice"; did you mean "AgentPolicy"?`},
		{"a preset is no document", strings.Replace(head, "AgentPolicy", "Preset", 1), `unknown kind "Preset"; known here: AgentPolicy, Guardrail`},
		{"missing spec", "apiVersion: bailiff.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\n", `f.yaml:1:1: error: spec is missing; add it`},
		{"missing subject", strings.Replace(head, "subject: {spiffeID: a}", "mode: audit", 1), `f.yaml:5:3: error: subject is missing; write subject: {spiffeID: ID}`},
		{"unknown field", head + "  file: []\n", `f.yaml:6:3: error: unknown field "file" in spec; did you mean "files"?`},
		{"unknown field, nothing like it", head + "  zzzzzzzz: []\n", `unknown field "zzzzzzzz" in spec; known here: subject, mode, presets, capabilities, files, network, environment`},
		{"control characters", head + "  \"a\\nb\\e\": 1\n", `f.yaml:6:3: error: unknown field "a\nb\x1b" in spec`},
		{"duplicate key", head + "  mode: audit\n  mode: audit\n", `f.yaml:7:3: error: field "mode" is given twice in spec; remove one of them`},
		{"later release", head + "  tools: {allow: [read]}\n", `f.yaml:6:3: error: spec.tools is not supported by this build; remove tools: `},
		{"later release too", head + "  requests: []\n", `spec.requests is not supported by this build`},
		{"bad mode", head + "  mode: enforced\n", `f.yaml:6:9: error: unknown mode "enforced"; did you mean "enforce"?`},
		{"bad name", strings.Replace(head, "name: p", "name: My_Policy", 1), `f.yaml:3:18: error: metadata.name "My_Policy" can't be used; a name is lower-case letters`},
		{"long name", strings.Replace(head, "name: p", "name: "+strings.Repeat("p", 254), 1), `a name has at most 253 bytes`},
		{"reserved name", strings.Replace(head, "name: p", "name: builtin", 1), `the name is reserved`},
		{"reserved beginning of a name", strings.Replace(head, "name: p", "name: builtin.p", 1), `the name is reserved`},
		{"number for a name", strings.Replace(head, "name: p", "name: 12", 1), `metadata.name must be text, not the number 12; put it in quotes: "12"`},
		{"two names", head + "---\n" + head, `f.yaml:7:1: error: the name "p" is used already at f.yaml:1:1; choose another`},
		{"bad subject", strings.Replace(head, "spiffeID: a", `spiffeID: "spiffe://x/a*"`, 1), `f.yaml:5:23: error: subject "spiffe://x/a*" can't be used: "*" is only known as the whole last segment`},
		{"unknown preset", head + "  presets: [runtimes]\n", `f.yaml:6:13: error: unknown preset "runtimes"; did you mean "runtime"?`},
		{"preset twice", head + "  presets: [git, git]\n", `preset "git" is named twice`},
		{"anchor", head + "  mode: &m audit\n", `f.yaml:6:9: error: YAML anchors are not allowed`},
		{"alias", head + "  presets: &m [git]\n  files: *m\n", `f.yaml:7:10: error: YAML aliases are not allowed in a policy; write the value out`},
		{"tag", head + "  presets: !mine [git]\n", `f.yaml:6:12: error: YAML tags such as "!mine" are not allowed`},
		{"tag on text", head + "  mode: !!str audit\n", `YAML tags such as "!!str" are not allowed`},
		{"merge key", head + "  <<: {mode: audit}\n", `unknown field "<<" in spec`},
		{"not a list", head + "  files: {path: /a}\n", `f.yaml:6:10: error: files must be a list, not a mapping`},
		{"line not a mapping", files("/etc"), `f.yaml:7:7: error: a files line must be a mapping, not the text "/etc"`},
	}
}

func fileProblems() []problemCase {
	return []problemCase{
		{"unknown access word", files(`{path: /a, allow: [raed]}`), `f.yaml:7:26: error: unknown access word "raed"; did you mean "read"?`},
		{"another system's word", files(`{path: /a, allow: [exec]}`), `unknown access word "exec"; write "execute"`},
		{"word twice", files(`{path: /a, allow: [read, read]}`), `access word "read" is given twice`},
		{"no words", files(`{path: /a, allow: []}`), `allow is empty; write at least one of read, write`},
		{"neither", files(`{path: /a}`), `a files line needs one of allow, deny`},
		{"both", files(`{path: /a, allow: [read], deny: [write]}`), `a files line has allow, deny, but may have only one`},
		{"no path", files(`{allow: [read]}`), `path is missing; write path: /PATH`},
		{"relative", files(`{path: a/b, allow: [read]}`), `f.yaml:7:14: error: path "a/b" can't be used: it is not absolute; write it from the root, as in "/a/b"`},
		{"home", files(`{path: ~/x, allow: [read]}`), `"~" is not expanded; write the home directory in full`},
		{"empty path", files(`{path: "", allow: [read]}`), `path "" can't be used: it is empty; write an absolute path`},
		{"NUL", files(`{path: "/a\0", allow: [read]}`), `it contains a NUL, which no path can; remove it`},
		{"long path", files(`{path: ` + strings.Repeat("/a", 2049) + `, allow: [read]}`), `it has 4098 bytes; at most 4096 are possible`},
		{"list for text", files(`{path: [/a], allow: [read]}`), `path must be text, not a list; write it as text`},
		{"nothing for text", files(`{path: , allow: [read]}`), `path must be text, not nothing`},
		{"truth value", files(`{path: true, allow: [read]}`), `path must be text, not the truth value true; put it in quotes: "true"`},
		{"date", files(`{path: 2020-01-01, allow: [read]}`), `path must be text, not "2020-01-01" of type !!timestamp`},
		{"field name", files(`{[path]: /a, allow: [read]}`), `a field's name must be a word, not a list`},
		{"dot dot", files(`{path: /a/../b, allow: [read]}`), `it contains the component ".."; write the path without it`},
		{"double slash", files(`{path: /a//b, allow: [read]}`), `it contains an empty component; write "/a/b"`},
		{"trailing slash", files(`{path: /a/, allow: [read]}`), `it ends in a slash; write "/a"`},
		{"set", files(`{path: "/a/[bc]", allow: [read]}`), `character sets such as "[ab]" are not known here; write one line for each, or a backslash before "["`},
		{"alternatives", files(`{path: "/a/{b,c}", allow: [read]}`), `alternatives such as "{a,b}" are not known here`},
		{"stars in a component", files(`{path: "/a/b**", allow: [read]}`), `"**" must be a whole component, not a part of "b**"`},
		{"colon in a component", files(`{path: "/a: b**", allow: [read]}`), `not a part of "a: b**"; write "*" there`},
		{"outranking", files(`{path: "/a/**/*", allow: [read]}`), `"/**/*" matches at every depth and would outrank every deeper rule`},
		{"backslash", files(`{path: '/a\', allow: [read]}`), `it has a backslash with nothing to escape; write two`},
		{"deep", files(`{path: ` + strings.Repeat("/a", 61) + `, allow: [read]}`), `it has 61 components; at most 60 are possible`},
		{"long component", files(`{path: /` + strings.Repeat("a", 256) + `, allow: [read]}`), `a name in it has 256 bytes; at most 255`},
		{"glob too complex", files(`{path: "/*a` + strings.Repeat("?", 20) + `", allow: [read]}`), `make too many combinations; use fewer`},
		{"contradiction", head + "  files:\n    - {path: /a, allow: [read]}\n    - {path: /a, deny: [read, write]}\n", `f.yaml:8:7: error: path "/a" is both allowed and denied: read, see f.yaml:7:7`},
		{"repetition", head + "  files:\n    - {path: /a, allow: [read]}\n    - {path: /a, allow: [read]}\n", `f.yaml:8:7: error: path "/a" has read twice, see f.yaml:7:7`},
	}
}

func networkProblems() []problemCase {
	return []problemCase{
		{"no action", network(`{ip: 10.0.0.1, ports: [1]}`), `a network line needs one of allow, deny`},
		{"unknown action", network(`{allow: conect, ip: 10.0.0.1}`), `unknown action "conect"; did you mean "connect"?`},
		{"no target", network(`{allow: connect, ports: [443]}`), `f.yaml:7:7: error: a connect line needs one of cidr, ip, host, unix, to; add one`},
		{"two targets", network(`{allow: connect, ip: 10.0.0.1, host: a.b}`), `a connect line has ip, host, but may have only one`},
		{"host bits", network(`{allow: connect, cidr: 10.1.2.3/16}`), `address "10.1.2.3/16" can't be used: it has bits set beyond its prefix length; write "10.1.0.0/16"`},
		{"no prefix length", network(`{allow: connect, cidr: 10.1.2.3}`), `it has no prefix length`},
		{"network as ip", network(`{allow: connect, ip: 10.0.0.0/8}`), `it is a network; write "cidr: 10.0.0.0/8"`},
		{"name as ip", network(`{allow: connect, ip: example.org}`), `it is no IP address`},
		{"zone", network(`{allow: connect, ip: "fe80::1%eth0"}`), `it has a zone, which rules can't check; write "fe80::1"`},
		{"address as host", network(`{allow: connect, host: 10.0.0.1}`), `it is an address; write "ip: 10.0.0.1"`},
		{"URL as host", network(`{allow: connect, host: "https://a.b"}`), `it is no DNS name`},
		{"star in host", network(`{allow: connect, host: "a.*.org"}`), `"*" is only known as the whole first label`},
		{"host", network(`{allow: connect, host: api.github.com}`), `f.yaml:7:30: unsupported: host "api.github.com" can't be enforced by this build`},
		{"reversed range", network(`{allow: connect, ip: 10.0.0.1, ports: [90-80]}`), `port "90-80" can't be used: the range is reversed; write "80-90"`},
		{"no port", network(`{allow: connect, ip: 10.0.0.1, ports: [https]}`), `it is no port; write a number from 0 to 65535`},
		{"octal port", network(`{allow: connect, ip: 10.0.0.1, ports: [010]}`), `port "010" can't be used: it is no port`},
		{"port too large", network(`{allow: connect, ip: 10.0.0.1, ports: [65536]}`), `it is no port`},
		{"overlapping ports", network(`{allow: connect, ip: 10.0.0.1, ports: [80, 70-90]}`), `ports 80 and 70-90 overlap`},
		{"empty ports", network(`{allow: connect, ip: 10.0.0.1, ports: []}`), `ports is empty`},
		{"unknown protocol", network(`{allow: connect, ip: 10.0.0.1, protocol: icmp}`), `unknown protocol "icmp"; known here: tcp, udp, any`},
		{"relative socket", network(`{allow: connect, unix: run/x}`), `unix "run/x" can't be used: it is not absolute`},
		{"abstract without a name", network(`{allow: connect, unix: "@"}`), `the abstract name is empty`},
		{"long abstract name", network(`{allow: connect, unix: "@` + strings.Repeat("a", 108) + `"}`), `a name in it has 108 bytes; at most 107`},
		{"NUL in an abstract name", network(`{allow: connect, unix: "@a\0"}`), `an abstract name with a NUL`},
		{"stars as an abstract name", network(`{allow: connect, unix: "@**"}`), `"**" has no meaning in an abstract name; write "@*"`},
		{"long socket path", network(`{allow: connect, unix: /` + strings.Repeat("a", 107) + `}`), `it has 108 bytes; a Unix socket's path has at most 107`},
		{"listen on a name", network(`{allow: listen, host: a.b, ports: [1]}`), `a listen line can't have "host"; give ports`},
		{"ports of a socket", network(`{allow: connect, unix: /run/x, ports: [1]}`), `ports has no meaning beside unix or to`},
		{"listen on a socket", network(`{allow: listen, unix: /run/x}`), `a listen line can't have "unix"; allow create on the socket's path`},
		{"another self", network(`{allow: connect, to: other}`), `unknown target "other"; known here: self`},
		{"deny self", network(`{deny: connect, to: self}`), `to: self can only be allowed`},
		{"IPv4 only", network(`{allow: connect, cidr: 0.0.0.0/0}`), `note: 0.0.0.0/0 covers IPv4 only, not IPv6; add a line with cidr: "::/0" if both are meant`},
		{"IPv6 only", network(`{allow: connect, cidr: "::/0"}`), `note: ::/0 covers IPv6 only, not IPv4`},
		{"network contradiction", head + "  network:\n    - {allow: connect, ip: 10.0.0.1, ports: [1-9]}\n    - {deny: connect, cidr: 10.0.0.1/32, ports: [5]}\n", `f.yaml:8:7: error: {deny: connect, cidr: 10.0.0.1/32, ports: [5]} and f.yaml:7:7 allow and deny the same`},
		{"network repetition", head + "  network:\n    - {allow: listen, ports: [1]}\n    - {allow: listen, ports: [1]}\n", `f.yaml:8:7: error: {allow: listen, ports: [1]} repeats what f.yaml:7:7 says`},
	}
}

func otherProblems() []problemCase {
	return []problemCase{
		{"variable name", head + "  environment: {drop: [\"A-B\"]}\n", `f.yaml:6:24: error: "A-B" matches no variable's name`},
		{"set name", head + "  environment: {set: {1A: x}}\n", `"1A" is no variable's name`},
		{"set value", head + "  environment: {set: {A: 1}}\n", `the value of a variable must be text, not the number 1; put it in quotes: "1"`},
		{"set as a list", head + "  environment: {set: [A]}\n", `environment.set must be a mapping, not a list; write it as {NAME: VALUE}`},
		{"long value", head + "  environment: {set: {A: " + strings.Repeat("x", MaxVariable+1) + "}}\n", `the value of "A" is too long`},
		{"set twice", head + "  environment: {set: {A: x, A: y}}\n", `variable "A" is set twice`},
		{"capability", head + "  capabilities: [CHOWN, cap_setuid, Cap_Kill, CAP_NET_BIND_SERVICE, lease, sys_admin]\n", `f.yaml:6:76: error: capability "sys_admin" can't be given: with it a session could mount file systems, enter namespaces and much else that undoes what is enforced; remove it; possible are CHOWN, DAC_OVERRIDE,`},
		{"capability that loads programs", head + "  capabilities:\n    - CAP_BPF\n", `f.yaml:7:7: error: capability "CAP_BPF" can't be given: with it a session could load programs into the kernel`},
		{"capability misspelt", head + "  capabilities: [cap_chwon]\n", `f.yaml:6:18: error: capability "cap_chwon" is unknown; did you mean "CHOWN"?`},
		{"capability of no kernel", head + "  capabilities: [ALL]\n", `capability "ALL" is unknown; known here: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH`},
		{"capability twice", head + "  capabilities: [KILL, cap_kill]\n", `f.yaml:6:24: error: capability KILL is given twice; remove one of them`},
		{"capability by number", head + "  capabilities: [0]\n", `a capability must be text, not the number 0`},
		{"capabilities as a word", head + "  capabilities: CHOWN\n", `capabilities must be a list, not the text "CHOWN"; write it as [ITEM, ...]`},
		{"guardrail with capabilities", guardHead + "  capabilities: [CHOWN]\n", `unknown field "capabilities" in spec; known here: subjects, files, network`},
		{"guardrail allows", guardHead + "  files:\n    - {path: /a, allow: [read]}\n", `f.yaml:7:7: error: a Guardrail can't allow; write deny`},
		{"guardrail allows network", guardHead + "  network:\n    - {allow: listen, ports: [1]}\n", `f.yaml:7:7: error: a Guardrail can't allow`},
		{"guardrail about nobody", strings.Replace(guardHead, `["spiffe://local/*"]`, "[]", 1), `the Guardrail is about nobody`},
	}
}

func TestProblems(t *testing.T) {
	for _, tt := range slices.Concat(documentProblems(), fileProblems(), networkProblems(), otherProblems()) {
		t.Run(tt.name, func(t *testing.T) {
			docs, ps := Parse("f.yaml", []byte(tt.text))
			var all []string
			for _, p := range ps {
				all = append(all, p.String())
				if strings.ContainsAny(p.String(), "\n\x1b") {
					t.Errorf("control characters in %q", p)
				}
				if p.Severity == Error && p.Fix == "" {
					t.Errorf("no way out of: %s", p)
				}
			}
			if got := strings.Join(all, "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("want %s\ngot  %s", tt.want, got)
			}
			if ps.Has(Error) && len(docs) > 0 && !strings.Contains(tt.text, "---") {
				t.Error("a document with an error was returned")
			}
		})
	}
}

func TestParseReportsEverythingSorted(t *testing.T) {
	_, ps := Parse("f.yaml", []byte(head+`  mod: audit
  files:
    - {path: a, allow: [raed]}
    - {pth: /b, deny: [write]}
  network:
    - {allow: connect, cidr: 10.1.1.1/8, ports: [9-1]}
---
kind: Nothing
`))
	var lines []int
	for _, p := range ps {
		lines = append(lines, p.Pos.Line)
	}
	want := []int{6, 8, 8, 9, 9, 11, 11, 13, 13, 13, 13}
	if len(lines) != len(want) {
		t.Fatalf("got %d problems, want %d:\n%v", len(lines), len(want), ps)
	}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("problem %d is on line %d, want %d: %s", i, lines[i], want[i], ps[i])
		}
	}
}

func TestOversizeFile(t *testing.T) {
	_, ps := Parse("f.yaml", make([]byte, MaxFileSize+1))
	if len(ps) != 1 || !strings.Contains(ps[0].String(), "f.yaml:1:1: error: the file has 67108865 bytes") {
		t.Errorf("got %v", ps)
	}
}

// Only the document that comes with Bailiff is about everyone.
func TestParseBuiltin(t *testing.T) {
	const text = `apiVersion: bailiff.dev/v1alpha1
kind: Guardrail
metadata: {name: builtin}
spec:
  subjects: ["spiffe://*"]
  files:
    - {path: /srv/own, deny: [write]}
`
	docs, ps := ParseBuiltin("b.yaml", []byte(text))
	if err := ps.Err(); err != nil || len(docs) != 1 {
		t.Fatalf("%v, %d documents", err, len(docs))
	}
	if _, ps := Parse("b.yaml", []byte(text)); len(ps) != 2 {
		t.Errorf("read as a user's own it has other problems than its name and its subject: %v", ps)
	}
	if _, ps := ParseBuiltin("b.yaml", []byte(strings.Replace(text, "builtin", "default", 1))); !ps.Has(Error) {
		t.Error("another reserved name is taken")
	}
	own := mustParse(t, head+"  files:\n    - {path: /srv/own, allow: [read, write]}\n")
	r, _ := Compile(testAgent, append(docs, own...))
	alone, _ := Compile(testAgent, own)
	if s := r.Files.States[r.Files.Walk([]string{"srv", "own"})]; s.Guard != Write || r.Rules[s.Rule[1]].ID != "builtin/files/0" {
		t.Errorf("the state is %+v", s)
	}
	for i := range alone.Rules {
		if alone.Rules[i] != r.Rules[i] {
			t.Errorf("the built-in guardrail changed what rule %d is: %v", i, r.Rules[i])
		}
	}
}

func TestEscapePath(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a b/c*": `/a b/c\*`, "/x\xffy": "/x?y", strings.Repeat("/d", MaxDepth+5): strings.Repeat("/d", MaxDepth),
	} {
		if got := EscapePath(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}
