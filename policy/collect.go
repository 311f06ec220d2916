// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
)

// ruleList is the rules that hold for one agent, numbered. The compiler and the
// reference evaluator both start from it, and share nothing else.
type ruleList struct {
	rules    []Rule
	files    []pathRule // Unix sockets too
	network  []netRule
	self     RuleNumber
	policies int // AgentPolicies
	audit    bool
	caps     Capabilities
	env      Environment
	problems Problems
}

// pathRule is a rule about paths, or about Unix sockets.
type pathRule struct {
	number  RuleNumber
	pattern pattern
	access  Access
	deny    bool
	guard   bool
	preset  bool
}

// netRule is a rule about IP addresses.
type netRule struct {
	number     RuleNumber
	direction  Direction
	prefixes   []netip.Prefix
	ports      []PortSpan
	transports []Transport
	deny       bool
	guard      bool
	builtin    bool
}

// collect numbers the rules of all documents about an agent: guardrails first,
// then policies, each by name, then the built-in ones. The order of the
// documents does not matter.
func collect(agent string, docs []Document) *ruleList {
	l := &ruleList{audit: true, rules: []Rule{{
		ID: "default", Policy: Builtin, Deny: true, Text: "what no line allows is denied",
	}}}
	var mine []*Document
	for i := range docs {
		if slices.ContainsFunc(docs[i].Subjects(), func(s string) bool { return Match(s, agent) }) {
			mine = append(mine, &docs[i])
		}
	}
	slices.SortStableFunc(mine, func(a, b *Document) int {
		return -cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(b.Name, a.Name))
	})
	for _, d := range mine {
		if d.Name != Builtin {
			l.addDocument(d)
		}
	}
	l.addMetadata()
	// Last, so that no other rule's number depends on what of a host it names.
	for _, d := range mine {
		if d.Name == Builtin {
			l.addDocument(d)
		}
	}
	l.environment(mine)
	return l
}

func (l *ruleList) addDocument(d *Document) {
	src := source{doc: d, name: d.Name, guard: d.Kind == KindGuardrail}
	src.addTo(l, d.Files(), d.Network())
	if d.Kind != KindAgentPolicy {
		return
	}
	l.policies++
	l.audit = l.audit && d.Policy.Mode == Audit
	l.caps |= d.Policy.Capabilities
	for _, use := range d.Policy.Presets {
		preset, err := loadPreset(use.Name)
		if err != nil {
			l.problems = append(l.problems, Problem{
				Severity: Error, Pos: use.Pos, Message: err.Error(), Fix: "known here: " + joinFields(PresetNames()),
			})
			continue
		}
		src := source{doc: d, name: d.Name, preset: &use}
		src.addTo(l, preset.Policy.Files, nil)
		l.caps |= preset.Policy.Capabilities
	}
}

// source is where lines come from.
type source struct {
	doc    *Document
	name   string
	guard  bool
	preset *PresetUse
}

func (s *source) addTo(l *ruleList, files []FileLine, network []NetworkLine) {
	for i := range files {
		f := &files[i]
		if f.Allow|f.Deny == 0 {
			continue
		}
		l.files = append(l.files, pathRule{
			number:  l.add(s.rule("files", i, fileLineText(f), f.Deny != 0, f.Pos)),
			pattern: f.pattern, access: f.Allow | f.Deny, deny: f.Deny != 0, guard: s.guard, preset: s.preset != nil,
		})
	}
	for i := range network {
		n := &network[i]
		if n.Allow == "" && n.Deny == "" {
			continue
		}
		l.addNetwork(n, l.add(s.rule("network", i, networkLineText(n), n.Deny != "", n.Pos)), s.guard)
	}
}

func (s *source) rule(section string, index int, text string, deny bool, pos Position) Rule {
	if s.preset != nil {
		section, pos = "preset/"+s.preset.Name, s.preset.Pos
	}
	return Rule{
		ID:     s.name + "/" + section + "/" + strconv.Itoa(index),
		Policy: s.name, Guard: s.guard, Deny: deny, Text: text, Pos: pos,
	}
}

func (l *ruleList) add(r Rule) RuleNumber {
	l.rules = append(l.rules, r)
	return RuleNumber(len(l.rules) - 1)
}

func (l *ruleList) addNetwork(n *NetworkLine, number RuleNumber, guard bool) {
	deny := n.Deny != ""
	switch {
	case n.To != "":
		if l.self == 0 {
			l.self = number
		}
	case n.Unix != "":
		l.files = append(l.files, pathRule{number: number, pattern: n.pattern, access: Connect, deny: deny, guard: guard})
	case n.Host != "":
		d := decoder{}
		d.hostUnsupported(n.Pos, n.Host)
		l.problems = append(l.problems, d.problems...)
	default:
		r := netRule{
			number: number, direction: Outbound, prefixes: n.prefixes, ports: n.Ports,
			transports: n.transports(), deny: deny, guard: guard,
		}
		if n.Allow+n.Deny == ActionListen {
			r.direction = Inbound
		}
		if len(r.ports) == 0 {
			r.ports = []PortSpan{{0, 65535}}
		}
		l.network = append(l.network, r)
	}
}

// metadataAddresses are where clouds serve credentials to whoever asks: AWS, GCP
// and Azure instances, ECS tasks, EKS pods, Alibaba, Azure's wire server, Oracle.
func metadataAddresses() []netip.Addr {
	var addrs []netip.Addr
	for _, s := range []string{
		"169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23",
		"100.100.100.200", "168.63.129.16", "192.0.0.192",
	} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

// addMetadata denies the metadata addresses. A policy that names exactly one of
// them is about it instead, at the ports it names.
func (l *ruleList) addMetadata() {
	for i, a := range metadataAddresses() {
		p := netip.PrefixFrom(a, a.BitLen())
		n := l.add(Rule{
			ID: "builtin/metadata/" + strconv.Itoa(i), Policy: Builtin, Deny: true,
			Text: networkLineText(&NetworkLine{Deny: ActionConnect, IP: a.String()}),
		})
		l.network = append(l.network, netRule{
			number: n, direction: Outbound, prefixes: []netip.Prefix{p}, ports: []PortSpan{{0, 65535}},
			transports: []Transport{TCP, UDP}, deny: true, builtin: true,
		})
	}
}
