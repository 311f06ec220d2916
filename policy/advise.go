// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Advice is the line that would allow what was denied.
type Advice struct {
	Section string // "files", "network" or "capabilities"; empty where no line can
	Line    string // one list item in flow form, "- {...}", to put under spec.Section; empty where no line can
	Reason  string // why no line can; empty where one can
}

// AdviseFile says which line would allow rights on a path, given as components
// from the root down; an abstract socket is "\x00" and its name, as an
// Automaton takes it. For Connect that is a network line, else a files line.
func (r *Ruleset) AdviseFile(components []string, access Access) Advice {
	state := &r.Files.States[r.Files.Walk(components)]
	for bit := range NumAccess {
		right := Access(1) << bit
		if access&right == 0 || state.Deny&right == 0 {
			continue
		}
		rule := &r.Rules[state.Rule[bit]]
		if state.Guard&right != 0 {
			return Advice{Reason: "guardrail " + rule.ID + " denies it, and no policy can open that"}
		}
		if names(rule.Text, components) {
			return Advice{Reason: rule.ID + " denies exactly this; change that line, at " + rule.Pos.String()}
		}
	}
	text, ok := writePath(components)
	if !ok {
		return Advice{Reason: "the path can't be written in a policy; allow a directory above it, or a wildcard"}
	}
	if access&Connect != 0 {
		return Advice{Section: "network", Line: "- " + networkLineText(&NetworkLine{Allow: ActionConnect, Unix: text})}
	}
	if access == 0 {
		return Advice{Reason: "no access was asked for"}
	}
	return Advice{Section: "files", Line: "- " + fileLineText(&FileLine{Path: text, Allow: access})}
}

// writePath returns a path or abstract name as a policy writes it.
func writePath(components []string) (string, bool) {
	if len(components) == 2 && components[0] == abstractName {
		text := "@" + escapeComponent(components[1])
		_, err := parseAbstract(text[1:])
		return text, err == nil
	}
	var b strings.Builder
	for _, c := range components {
		b.WriteString("/" + escapeComponent(c))
	}
	if b.Len() == 0 {
		return "/", true
	}
	if !utf8.ValidString(b.String()) {
		return "", false
	}
	_, err := parsePattern(b.String())
	return b.String(), err == nil
}

// names reports whether a rule's line names a path itself, without wildcards.
func names(line string, components []string) bool {
	var l struct{ Path, File, Unix string }
	if yaml.Unmarshal([]byte(line), &l) != nil {
		return false
	}
	text, ok := writePath(components)
	return ok && (text == l.Path || text == l.File || text == l.Unix)
}

// AdviseNet says which line would allow connecting to an address, or listening on
// a port of it.
func (r *Ruleset) AdviseNet(direction Direction, addr netip.Addr, port uint16, transport Transport) Advice {
	addr = addr.Unmap().WithZone("")
	if transport != TCP && transport != UDP {
		return Advice{Reason: "only TCP and UDP can be allowed"}
	}
	decided, found := r.Net.Lookup(direction, addr, port, transport)
	if found && !decided.Allow {
		if why := r.fixedDeny(&decided, addr); why != "" {
			return Advice{Reason: why}
		}
	}
	l := NetworkLine{Allow: ActionConnect, Ports: []PortSpan{{port, port}}}
	if transport == UDP {
		l.Protocol = ProtocolUDP
	}
	if direction == Inbound {
		l.Allow = ActionListen
	}
	// Without an address a listen line is about all of them, which a narrower deny
	// would still beat.
	if direction == Outbound || found {
		l.IP = addr.String()
	}
	return Advice{Section: "network", Line: "- " + networkLineText(&l)}
}

// fixedDeny says why no added line can allow an address, or nothing.
func (r *Ruleset) fixedDeny(decided *PortRange, addr netip.Addr) string {
	rule := &r.Rules[decided.Rule]
	switch {
	case decided.Guard:
		return "guardrail " + rule.ID + " denies it, and no policy can open that"
	case strings.HasPrefix(rule.ID, "builtin/metadata/"):
		return addr.String() + " serves credentials of the machine's cloud; it stays denied unless a line is written for exactly that address"
	}
	var l struct{ IP, CIDR string }
	if yaml.Unmarshal([]byte(rule.Text), &l) != nil {
		return ""
	}
	p, err := parseIP(l.IP)
	if l.CIDR != "" {
		p, err = parseCIDR(l.CIDR)
	}
	if err == nil && p == netip.PrefixFrom(addr, addr.BitLen()) {
		return rule.ID + " denies exactly this; change that line, at " + rule.Pos.String()
	}
	return ""
}

// AdviseCapability says which line would leave a session the capability of a
// number, as in capabilities(7).
func AdviseCapability(number uint16) Advice {
	all := capabilities()
	if int(number) >= len(all) {
		return Advice{Reason: "this build does not know the capability"}
	}
	c := all[number]
	if !c.open {
		return Advice{Reason: "no policy can name it: with it a session could " + c.what}
	}
	return Advice{Section: "capabilities", Line: "- " + c.name}
}
