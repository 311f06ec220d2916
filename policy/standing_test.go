// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const standingPolicy = head + `  files:
    - {path: /srv, allow: [read]}
    - {path: /srv/closed, deny: [write]}
    - {path: "/srv/*.key", deny: [read]}
    - {path: /work, allow: [read, write]}
  network:
    - {deny: connect, ip: 10.0.0.9}
    - {deny: connect, cidr: 10.1.0.0/16, ports: [22]}
    - {allow: connect, cidr: 192.168.0.0/16, ports: [80-89]}
    - {allow: listen, ports: [3000]}
---
` + guardHead + `  files:
    - {path: "/home/**/.ssh", deny: [read]}
  network:
    - {deny: connect, cidr: 10.66.0.0/16}
`

// describe is a Standing in words.
func (s Standing) describe() string {
	var words []string
	if s.Denied != nil {
		words = append(words, "denied by "+s.Denied.ID)
	}
	if s.Allowed {
		words = append(words, "allowed")
	}
	if s.Within != nil {
		words = append(words, "within "+s.Within.ID)
	}
	return strings.Join(words, ", ")
}

func TestStandingFile(t *testing.T) {
	r := mustCompile(t, standingPolicy)
	for _, tt := range []struct {
		path   string
		access Access
		want   string
	}{
		{"/data", Read | Write, ""},
		{"/work/x", Read, "allowed"},
		{"/work/x", Read | Create, ""},
		{"/srv/plain/x", Write, ""},
		{"/srv", Write, "within p/files/1"},
		{"/srv", Read, "within p/files/2"},
		{"/srv/closed", Write | Create, "denied by p/files/1"},
		{"/srv/closed/x", Write, "denied by p/files/1"},
		{"/srv/closed/x", Read, "allowed"},
		{"/srv/a.key", Read, "denied by p/files/2"},
		{"/home/me/.ssh/id", Read, "denied by g/files/0"},
		{"/home", Read, "within g/files/0"},
		{"/", Execute, ""},
		{"/", Read, "within g/files/0"},
	} {
		if got := r.StandingFile(components(tt.path), tt.access).describe(); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.path, tt.access, got, tt.want)
		}
	}
}

func TestStandingNet(t *testing.T) {
	r := mustCompile(t, standingPolicy)
	all := PortSpan{0, 65535}
	for _, tt := range []struct {
		prefix    string
		ports     PortSpan
		transport Transport
		want      string
	}{
		{"10.0.0.5/32", PortSpan{443, 443}, TCP, ""},
		{"10.0.0.9/32", PortSpan{443, 443}, TCP, "denied by p/network/0"},
		{"10.0.0.9/32", PortSpan{443, 443}, UDP, "denied by p/network/0"},
		{"10.0.0.0/24", PortSpan{443, 443}, TCP, "within p/network/0"},
		{"10.1.2.3/32", PortSpan{22, 22}, TCP, "denied by p/network/1"},
		{"10.1.2.3/32", PortSpan{20, 30}, TCP, "within p/network/1"},
		{"10.1.2.3/32", all, TCP, "within p/network/1"},
		{"10.1.2.3/32", PortSpan{23, 30}, TCP, ""},
		{"10.66.1.0/24", all, TCP, "denied by g/network/0"},
		{"192.168.1.0/24", PortSpan{80, 81}, TCP, "allowed"},
		{"192.168.1.0/24", PortSpan{80, 90}, TCP, ""},
		{"0.0.0.0/0", PortSpan{3000, 3000}, TCP, "within p/network/0"},
		{"127.0.0.1/32", PortSpan{3000, 3000}, TCP, ""},
		{"169.254.169.254/32", PortSpan{80, 80}, TCP, "denied by builtin/metadata/0"},
		{"fd00::/8", PortSpan{80, 80}, TCP, "within builtin/metadata/4"},
	} {
		if got := r.StandingNet(netip.MustParsePrefix(tt.prefix), tt.ports, tt.transport).describe(); got != tt.want {
			t.Errorf("%s %s %d: %q, want %q", tt.prefix, tt.ports, tt.transport, got, tt.want)
		}
	}
}

// What is said of a path and all below it must agree with the reference about
// each path there.
func TestStandingAgreesWithReference(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	seen := map[string]int{}
	for range 300 {
		docs := g.documents(t)
		r, _ := Compile(testAgent, docs)
		reference, err := NewReference(testAgent, docs)
		if err != nil {
			t.Fatal(err)
		}
		path, right := g.components(), Access(1)<<g.IntN(5)
		if len(path) > 0 && path[0] == abstractName {
			continue
		}
		s := r.StandingFile(path, right)
		for range 20 {
			at := path
			if more := g.components(); g.IntN(2) == 0 && !slices.Contains(more, abstractName) {
				at = append(slices.Clone(path), more...)
			}
			d := reference.File(at, right)
			denied := !d.Allow && d.Rule != 0
			switch {
			case s.Allowed && !d.Allow:
				t.Fatalf("%q is said to be allowed %s: at %q it is not", path, right, at)
			case len(at) == len(path) && denied != (s.Denied != nil):
				t.Fatalf("%q: denied %v by %d, but %q", path, denied, d.Rule, s.describe())
			case denied && s.Denied == nil && s.Within == nil:
				t.Fatalf("%q: rule %d denies %q, which is not said", path, d.Rule, at)
			}
			seen[strings.SplitN(s.describe(), " ", 2)[0]]++
		}
	}
	for _, kind := range []string{"", "allowed", "denied", "within"} {
		if seen[kind] == 0 {
			t.Errorf("no case was %q: %v", kind, seen)
		}
	}
}

func TestParseResources(t *testing.T) {
	for text, want := range map[string]string{
		"/": "", "/a/b*c": "a b*c", "/data": "data",
		"data": "not absolute", "/a/../b": `contains ".."`, "/a//b": "empty component", "/a/": "ends in a slash", "~/x": "not expanded", "": "empty",
		"/" + strings.Repeat("x/", 60) + "x": "61 components", "/" + strings.Repeat("x", 256): "256 bytes",
	} {
		got, err := ParsePath(text)
		if err == nil && strings.Join(got, " ") != want || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20q: %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.0/8": "10.0.0.0/8", "fd00::/8": "fd00::/8", "::1": "::1/128", "::ffff:10.0.0.1": "10.0.0.1/32",
		"db.example.org": "host name", "10.0.0.1/8": `write "10.0.0.0/8"`, "fe80::1%eth0": "zone", "": "no IP address", "10.0.0/8": "no network",
	} {
		got, err := ParseAddress(text)
		if err == nil && got.String() != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v, want %q", text, got, err, want)
		}
	}
}
