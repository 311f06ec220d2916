// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

const advisePolicy = head + `  files:
    - {path: /srv, allow: [read]}
    - {path: /srv/closed, deny: [read]}
    - {path: "/srv/*.key", deny: [read]}
  network:
    - {deny: connect, ip: 10.0.0.9}
    - {deny: connect, cidr: 10.0.0.0/8}
---
` + guardHead + `  files:
    - {path: "/**/.ssh", deny: [read]}
  network:
    - {deny: connect, cidr: 10.66.0.0/16}
    - {deny: connect, unix: /run/docker.sock}
`

func TestAdviseFile(t *testing.T) {
	r := mustCompile(t, advisePolicy)
	for _, tt := range []struct {
		path   []string
		access Access
		want   string
	}{
		{[]string{"etc", "hosts"}, Read, "files - {path: /etc/hosts, allow: [read]}"},
		{[]string{"etc", "hosts"}, Read | Write, "files - {path: /etc/hosts, allow: [read, write]}"},
		{nil, Read, "files - {path: /, allow: [read]}"},
		{[]string{"a b", "c*"}, Execute, `files - {path: "/a b/c\\*", allow: [execute]}`},
		{[]string{"a\nb"}, Read, `files - {path: "/a\nb", allow: [read]}`},
		{[]string{"a\xff"}, Read, "the path can't be written in a policy"},
		{[]string{"srv", "a.key"}, Read, "files - {path: /srv/a.key, allow: [read]}"},
		{[]string{"srv", "closed"}, Read, "p/files/1 denies exactly this; change that line, at f.yaml:8:7"},
		{[]string{"srv", "closed", "x"}, Read, "files - {path: /srv/closed/x, allow: [read]}"},
		{[]string{"srv", ".ssh", "id"}, Read, "guardrail g/files/0 denies it"},
		{[]string{"run", "x.sock"}, Connect, "network - {allow: connect, unix: /run/x.sock}"},
		{[]string{"run", "docker.sock"}, Connect, "guardrail g/network/1 denies it"},
		{[]string{abstractName, "/tmp/x"}, Connect, `network - {allow: connect, unix: "@/tmp/x"}`},
	} {
		a := r.AdviseFile(tt.path, tt.access)
		if got := strings.TrimSpace(a.Section + " " + a.Line + a.Reason); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%q %s: %s, want %s", tt.path, tt.access, got, tt.want)
		}
	}
}

func TestAdviseNet(t *testing.T) {
	r := mustCompile(t, advisePolicy)
	for _, tt := range []struct {
		direction Direction
		addr      string
		port      uint16
		transport Transport
		want      string
	}{
		{Outbound, "192.168.0.1", 443, TCP, "network - {allow: connect, ip: 192.168.0.1, ports: [443]}"},
		{Outbound, "10.0.0.1", 53, UDP, "network - {allow: connect, ip: 10.0.0.1, ports: [53], protocol: udp}"},
		{Outbound, "fd00::1", 1, TCP, `network - {allow: connect, ip: "fd00::1", ports: [1]}`},
		{Inbound, "0.0.0.0", 3000, TCP, "network - {allow: listen, ports: [3000]}"},
		{Outbound, "10.0.0.9", 1, TCP, "p/network/0 denies exactly this"},
		{Outbound, "10.66.0.1", 1, TCP, "guardrail g/network/0 denies it"},
		{Outbound, "169.254.169.254", 80, TCP, "169.254.169.254 serves credentials"},
		{Outbound, "10.0.0.1", 0, Transport(132), "only TCP and UDP"},
	} {
		a := r.AdviseNet(tt.direction, netip.MustParseAddr(tt.addr), tt.port, tt.transport)
		if got := strings.TrimSpace(a.Section + " " + a.Line + a.Reason); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.addr, got, tt.want)
		}
	}
}

// TestAdviceWorks follows the advice about random denials: a policy with the
// advised line must allow what was denied.
func TestAdviceWorks(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(7, 8))}
	followed := 0
	for range 400 {
		docs := g.documents(t)
		r, _ := Compile(testAgent, docs)
		path, right := g.components(), Access(1)<<g.IntN(NumAccess)
		if len(path) > 0 && path[0] == abstractName {
			right = Connect
		}
		if r.Rights(path)&right != 0 {
			continue
		}
		a := r.AdviseFile(path, right)
		if a.Line == "" {
			continue
		}
		followed++
		added := mustParse(t, policyText("added", "", "  "+a.Section+":\n    "+a.Line+"\n"))
		r, _ = Compile(testAgent, append(docs, added...))
		if r.Rights(path)&right == 0 {
			t.Fatalf("%s does not allow %s on %q", a.Line, right, path)
		}
	}
	if followed < 100 {
		t.Errorf("only %d denials had advice", followed)
	}
}

func TestAdviseCapability(t *testing.T) {
	if got := AdviseCapability(0); got.Section != "capabilities" || got.Line != "- CHOWN" {
		t.Errorf("CHOWN: %+v", got)
	}
	for _, number := range []uint16{21, 63, 1000} {
		if got := AdviseCapability(number); got.Line != "" || got.Reason == "" {
			t.Errorf("%d: %+v", number, got)
		}
	}
}
