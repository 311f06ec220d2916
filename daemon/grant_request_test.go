// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/sockdiag"
	"bailiff.dev/bailiff/policy"
)

func grantRequest(change func(*controlv1.IssueGrantRequest)) *controlv1.IssueGrantRequest {
	m := &controlv1.IssueGrantRequest{
		Session: "s-1", Ttl: durationpb.New(time.Minute),
		Network: []*controlv1.NetworkAccess{{Address: "10.0.0.5", Ports: []string{"443", "80-81", "80"}}, {Address: "fd00::/8", Protocol: "udp"}},
		Files:   []*controlv1.FileAccess{{Path: "/srv/data", Access: []string{"read", "write"}}},
	}
	change(m)
	return m
}

func TestRequestedGrant(t *testing.T) {
	x, err := requested(grantRequest(func(*controlv1.IssueGrantRequest) {}), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.resources(), "connect 10.0.0.5:443,80-81,80/tcp; connect [fd00::/8]:*/udp; read, write /srv/data"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	k := x.kernel(7, 8)
	if k.Session != 7 || k.Cgroup != 8 || len(k.Files) != 1 || !slices.Equal(k.Network[0].Ports, []uint16{80, 81, 443}) || k.Network[1].Ports != nil {
		t.Errorf("the kernel is told %+v", k)
	}
}

func TestRefusedGrants(t *testing.T) {
	network := func(m *controlv1.IssueGrantRequest) *controlv1.NetworkAccess { return m.Network[0] }
	file := func(m *controlv1.IssueGrantRequest) *controlv1.FileAccess { return m.Files[0] }
	for want, change := range map[string]func(*controlv1.IssueGrantRequest){
		"for nothing":                   func(m *controlv1.IssueGrantRequest) { m.Files, m.Network = nil, nil },
		"say how long":                  func(m *controlv1.IssueGrantRequest) { m.Ttl = nil },
		"--ttl 10m":                     func(m *controlv1.IssueGrantRequest) { m.Ttl = durationpb.New(-time.Second) },
		"at most 1h0m0s":                func(m *controlv1.IssueGrantRequest) { m.Ttl = durationpb.New(time.Hour + 1) },
		"too long":                      func(m *controlv1.IssueGrantRequest) { m.Ttl = &durationpb.Duration{Seconds: 1, Nanos: -1} },
		"16 of each":                    func(m *controlv1.IssueGrantRequest) { m.Files = slices.Repeat(m.Files, 17) },
		"the reason has 1025 bytes":     func(m *controlv1.IssueGrantRequest) { m.Reason = strings.Repeat("x", 1025) },
		"only files can be mapped":      func(m *controlv1.IssueGrantRequest) { m.KillMapped, m.Files = true, nil },
		"it is a host name":             func(m *controlv1.IssueGrantRequest) { network(m).Address = "db.example.org" },
		`write "10.0.0.0/8"`:            func(m *controlv1.IssueGrantRequest) { network(m).Address = "10.0.0.5/8" },
		"it is tcp or udp":              func(m *controlv1.IssueGrantRequest) { network(m).Protocol = "sctp" },
		"these are 65 ports":            func(m *controlv1.IssueGrantRequest) { network(m).Ports = []string{"100-163", "443"} },
		"these are 65535 ports":         func(m *controlv1.IssueGrantRequest) { network(m).Ports = []string{"1-65535"} },
		"0 is no port":                  func(m *controlv1.IssueGrantRequest) { network(m).Ports = []string{"0"} },
		`port "https": it is no port`:   func(m *controlv1.IssueGrantRequest) { network(m).Ports = []string{"https"} },
		"the range is reversed":         func(m *controlv1.IssueGrantRequest) { network(m).Ports = []string{"9-8"} },
		"not absolute":                  func(m *controlv1.IssueGrantRequest) { file(m).Path = "data" },
		`it contains ".."`:              func(m *controlv1.IssueGrantRequest) { file(m).Path = "/srv/../etc" },
		"ends in a slash":               func(m *controlv1.IssueGrantRequest) { file(m).Path = "/srv/" },
		"say what it may be used for":   func(m *controlv1.IssueGrantRequest) { file(m).Access = nil },
		`"rw" is no access word: known`: func(m *controlv1.IssueGrantRequest) { file(m).Access = []string{"rw"} },
		`"exec" is no access word: wri`: func(m *controlv1.IssueGrantRequest) { file(m).Access = []string{"read", "exec"} },
	} {
		if x, err := requested(grantRequest(change), time.Hour); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %q", x, err, want)
		}
	}
}

// judged compiles a policy of an agent.
func judged(t *testing.T, lines string) *policy.Ruleset {
	t.Helper()
	docs, problems := policy.Parse("f.yaml", []byte("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec:\n  subject: {spiffeID: a}\n"+lines))
	if problems.Has(policy.Error) {
		t.Fatal(problems)
	}
	r, problems := policy.Compile("spiffe://local/agent/a", docs)
	if r == nil {
		t.Fatal(problems)
	}
	return r
}

func TestGrantsThatPoliciesSpeakOf(t *testing.T) {
	r := judged(t, "  files:\n    - {path: /srv/data, deny: [write]}\n    - {path: /work, allow: [read]}\n"+
		"  network:\n    - {deny: connect, ip: 10.0.0.9}\n    - {deny: connect, ip: 10.0.0.5, ports: [80]}\n    - {allow: connect, ip: 10.0.0.6}\n")
	weigh := func(r *policy.Ruleset, change func(*controlv1.IssueGrantRequest)) string {
		x, err := requested(grantRequest(change), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		notes, err := weighGrant(x, r)
		if err != nil {
			return err.Error()
		}
		return strings.Join(notes, "; ")
	}
	none := func(*controlv1.IssueGrantRequest) {}
	only := func(path, access, address, ports string) func(*controlv1.IssueGrantRequest) {
		return func(m *controlv1.IssueGrantRequest) {
			m.Files, m.Network = nil, nil
			if path != "" {
				m.Files = []*controlv1.FileAccess{{Path: path, Access: []string{access}}}
				return
			}
			m.Network = []*controlv1.NetworkAccess{{Address: address, Ports: strings.Fields(ports)}}
		}
	}
	for _, x := range []struct {
		name, want string
		r          *policy.Ruleset
		change     func(*controlv1.IssueGrantRequest)
	}{
		{"no policy", "", nil, none},
		{"denied file", "a grant of read, write /srv/data would have no effect: p/files/0 denies it, at f.yaml:7:7, and", r, func(m *controlv1.IssueGrantRequest) { m.Network = nil }},
		{"denied port", "a grant of connect 10.0.0.5:80/tcp would have no effect: p/network/1 denies it", r, only("", "", "10.0.0.5", "443 80")},
		{"denied address", "connect 10.0.0.9:*/tcp would have no effect: p/network/0", r, only("", "", "10.0.0.9", "")},
		{"metadata", "builtin/metadata/0 denies it, and a grant opens only what no line speaks of: allow exactly that address in a policy", r, only("", "", "169.254.169.254", "80")},
		{"in part", "connect 10.0.0.0/24:*/tcp: a part of it stays denied by p/network/1", r, only("", "", "10.0.0.0/24", "")},
		{"in part, a file", "write /srv: a part of it stays denied by p/files/0", r, only("/srv", "write", "", "")},
		{"allowed", "connect 10.0.0.6:443/tcp is allowed without the grant", r, only("", "", "10.0.0.6", "443")},
		{"allowed file", "read /work/x is allowed without the grant", r, only("/work/x", "read", "", "")},
		{"not spoken of", "", r, only("", "", "10.0.0.7", "443")},
		{"audit", "the policy is in audit mode", judged(t, "  mode: audit\n"), none},
	} {
		if got := weigh(x.r, x.change); (x.want == "") != (got == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

func TestParseMappings(t *testing.T) {
	got := parseMappings(`55d0-55d2 r--p 00000000 08:02 135522                     /usr/bin/a b (deleted)
55d2-55d6 r-xp 00002000 08:02 135522                     /usr/lib/x\012y
55d6-55d8 rw-s 00006000 08:02 135522                     /srv/data
55d8-55d9 rw-p 00006000 08:02 135522                     /srv/private
7ffd-7ffe rw-p 00000000 00:00 0                          [stack]
7ffe-7fff rw-p 00000000 00:00 0
`)
	want := []mapping{
		{"55d0-55d2", "/usr/bin/a b", true, policy.Read}, {"55d2-55d6", "/usr/lib/x\ny", false, policy.Read | policy.Execute},
		{"55d6-55d8", "/srv/data", false, policy.Read | policy.Write}, {"55d8-55d9", "/srv/private", false, policy.Read},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// What another grant or the policy still allows stays open.
func TestCutting(t *testing.T) {
	r := judged(t, "  files: [{path: /srv/known, allow: [read]}]\n  network:\n    - {allow: connect, ip: 10.0.0.6}\n    - {allow: connect, to: self}\n    - {allow: listen, ports: [3000]}\n")
	prefix := netip.MustParsePrefix
	over := &grant{Files: []grantedFile{{"/srv", policy.Read | policy.Execute}}, Network: []grantedNetwork{
		{prefix("10.0.0.0/24"), nil, policy.TCP}, {prefix("127.0.0.0/8"), []policy.PortSpan{{Low: 80, High: 90}}, policy.TCP}}}
	live := &grant{Files: []grantedFile{{"/srv/b", policy.Read}}, Network: []grantedNetwork{{prefix("10.0.0.7/32"), []policy.PortSpan{{Low: 443, High: 443}}, policy.TCP}}}
	c := cutting{over: []*grant{over}, live: []*grant{live}}
	for _, x := range []struct {
		path   string
		access policy.Access
		want   bool
	}{
		{"/srv/a", policy.Read, true}, {"/srv", policy.Read, true}, {"/srvx", policy.Read, false}, {"/usr/lib/x", policy.Read, false},
		{"/srv/known/x", policy.Read, false}, {"/srv/known/x", policy.Read | policy.Execute, true},
		{"/srv/b/x", policy.Read, false}, {"/srv/b/x", policy.Read | policy.Execute, true}, {"/srv/b/x", policy.Read | policy.Write, false},
	} {
		if got := c.overMapping(mapping{path: x.path, access: x.access}, r); got != x.want {
			t.Errorf("%s mapped for %s: %v, want %v", x.path, x.access, got, x.want)
		}
	}
	socket := func(protocol uint8, local, peer string) sockdiag.Socket {
		return sockdiag.Socket{Protocol: protocol, Local: netip.MustParseAddrPort(local), Peer: netip.MustParseAddrPort(peer)}
	}
	const tcp, udp = uint8(policy.TCP), uint8(policy.UDP)
	all := []sockdiag.Socket{socket(tcp, "0.0.0.0:81", "0.0.0.0:0")}
	for _, x := range []struct {
		protocol    uint8
		local, peer string
		want        bool
	}{
		{tcp, "10.0.0.1:5000", "10.0.0.5:443", true},
		{udp, "10.0.0.1:5000", "10.0.0.5:443", false},
		{tcp, "10.0.0.1:5000", "10.0.1.5:443", false},
		{tcp, "10.0.0.1:5000", "10.0.0.6:443", false}, // by the policy
		{tcp, "10.0.0.1:5000", "10.0.0.7:443", false}, // by another grant
		{tcp, "10.0.0.1:5000", "10.0.0.7:444", true},
		{tcp, "10.0.0.1:3000", "10.0.0.5:999", false}, // let in
		{tcp, "127.0.0.1:5000", "127.0.0.1:80", true},
		{tcp, "127.0.0.1:5000", "127.0.0.1:81", false}, // to itself
		{tcp, "127.0.0.1:5000", "127.0.0.1:91", false},
		{tcp, "0.0.0.0:81", "0.0.0.0:0", false},
	} {
		s := socket(x.protocol, x.local, x.peer)
		if got := c.overSocket(&s, all, r); got != x.want {
			t.Errorf("%s to %s: %v, want %v", x.local, x.peer, got, x.want)
		}
	}
}
