// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (d *decoder) networkLines(n *yaml.Node, guard bool) []NetworkLine {
	var lines []NetworkLine
	d.list(n, "network", func(v *yaml.Node) {
		before := d.errors
		l := d.networkLine(v)
		if guard && l.Allow != "" {
			d.errorf(v, "write deny, or move the line into an AgentPolicy", "a Guardrail can't allow")
		}
		if d.errors != before {
			l = NetworkLine{Pos: d.pos(v)} // keeps the place of the lines that follow
		}
		lines = append(lines, l)
	})
	return lines
}

func networkFields() []string {
	return []string{"allow", "deny", "cidr", "ip", "host", "unix", "to", "ports", "protocol"}
}

func (d *decoder) networkLine(n *yaml.Node) NetworkLine {
	l := NetworkLine{Pos: d.pos(n)}
	seen := d.object(n, "a network line", networkFields(), func(key string, v *yaml.Node) {
		d.networkField(&l, key, v)
	})
	if n.Kind == yaml.MappingNode {
		d.oneOf(n, seen, "a network line", "allow", "deny")
		d.networkTarget(n, seen, &l)
	}
	return l
}

func (d *decoder) networkField(l *NetworkLine, key string, v *yaml.Node) {
	switch key {
	case "allow":
		l.Allow = Action(d.word(v, "action", string(ActionConnect), string(ActionListen)))
	case "deny":
		l.Deny = Action(d.word(v, "action", string(ActionConnect), string(ActionListen)))
	case "cidr":
		l.CIDR = d.prefix(v, l, parseCIDR)
	case "ip":
		l.IP = d.prefix(v, l, parseIP)
	case "host":
		l.Host = d.host(v)
	case "unix":
		l.Unix, l.pattern = d.unix(v)
	case "to":
		l.To = d.word(v, "target", "self")
	case "ports":
		l.Ports = d.ports(v)
	case "protocol":
		l.Protocol = Protocol(d.word(v, "protocol", string(ProtocolTCP), string(ProtocolUDP), string(ProtocolAny)))
	}
}

// networkTarget checks that the fields of a line go together.
func (d *decoder) networkTarget(n *yaml.Node, seen []string, l *NetworkLine) {
	has := func(f string) bool { return slices.Contains(seen, f) }
	targets := []string{"cidr", "ip", "host", "unix", "to"}
	if l.Allow == ActionListen || l.Deny == ActionListen {
		for _, f := range targets[2:] {
			if has(f) {
				d.errorf(n, listenFix(f), "a listen line can't have %q", f)
			}
		}
		if has("cidr") && has("ip") {
			d.errorf(n, "split it into one line for each", "a network line has cidr, ip, but may have only one of them")
		}
		if !has("cidr") && !has("ip") {
			l.prefixes = []netip.Prefix{allIPv4(), allIPv6()}
		}
		return
	}
	d.oneOf(n, seen, "a connect line", targets...)
	if has("unix") || has("to") {
		for _, f := range []string{"ports", "protocol"} {
			if has(f) {
				d.errorf(n, "remove "+f, "%s has no meaning beside unix or to", f)
			}
		}
	}
	if has("to") && l.Deny != "" {
		d.errorf(n, "remove the line: it is denied unless a line allows it", "to: self can only be allowed")
	}
}

func listenFix(field string) string {
	if field == "unix" {
		return "allow create on the socket's path under files instead"
	}
	return "give ports, and cidr or ip for the local address"
}

func allIPv4() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }
func allIPv6() netip.Prefix { return netip.PrefixFrom(netip.IPv6Unspecified(), 0) }

func (d *decoder) prefix(v *yaml.Node, l *NetworkLine, parse func(string) (netip.Prefix, error)) string {
	text, ok := d.text(v, "an address")
	if !ok {
		return ""
	}
	p, err := parse(text)
	if err != nil {
		d.wrong(v, "address", text, err)
		return text
	}
	l.prefixes = []netip.Prefix{p}
	if p.Bits() == 0 {
		d.allNote(v, p)
	}
	return text
}

func (d *decoder) allNote(v *yaml.Node, p netip.Prefix) {
	this, other, fix := "IPv4", "IPv6", allIPv6()
	if p.Addr().Is6() {
		this, other, fix = other, this, allIPv4()
	}
	d.noteAt(Note, d.pos(v), fmt.Sprintf("add a line with cidr: %q if both are meant", fix), "%s covers %s only, not %s", p, this, other)
}

func parseCIDR(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		return netip.Prefix{}, fmt.Errorf(`it has no prefix length: write "ip" for one address, or add "/24" or the like`)
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New(`it is no network: write ADDRESS/BITS, as in "10.20.0.0/16" or "fd00::/8"`)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("it has bits set beyond its prefix length: write %q", p.Masked())
	}
	return unmapPrefix(p), nil
}

// unmapPrefix returns the IPv4 prefix that an IPv4-mapped IPv6 prefix stands for.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func parseIP(text string) (netip.Prefix, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil && strings.Contains(text, "/"):
		return netip.Prefix{}, fmt.Errorf(`it is a network: write "cidr: %s"`, text)
	case err != nil:
		return netip.Prefix{}, errors.New(`it is no IP address: write it as in "10.0.0.1" or "fd00::1", or use host for a name`)
	case a.Zone() != "":
		return netip.Prefix{}, fmt.Errorf("it has a zone, which rules can't check: write %q", a.WithZone(""))
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (d *decoder) host(v *yaml.Node) string {
	text, ok := d.text(v, "a host")
	if !ok {
		return ""
	}
	if err := checkHost(text); err != nil {
		d.wrong(v, "host", text, err)
		return text
	}
	d.hostUnsupported(d.pos(v), text)
	return text
}

func (d *decoder) hostUnsupported(pos Position, host string) {
	d.noteAt(Unsupported, pos, "name its addresses with ip or cidr", "host %q can't be enforced by this build, and the policy can't be applied with it", host)
}

func checkHost(text string) error {
	if _, err := netip.ParseAddr(text); err == nil {
		return fmt.Errorf("it is an address: write %q", "ip: "+text)
	}
	name := strings.TrimPrefix(text, "*.")
	if strings.Contains(name, "*") {
		return errors.New(`"*" is only known as the whole first label, as in "*.example.org": write the names out`)
	}
	if len(name) > 253 {
		return errors.New("it has more than 253 bytes: no DNS name has, shorten it")
	}
	for _, label := range strings.Split(name, ".") {
		if !validWord(label, true) || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Contains(label, ".") {
			return errors.New(`it is no DNS name: write letters, digits and "-" between dots, without a scheme, port or final dot`)
		}
	}
	return nil
}

func (d *decoder) unix(v *yaml.Node) (string, pattern) {
	text, ok := d.text(v, "unix")
	if !ok {
		return "", pattern{}
	}
	p, err := parseUnix(text)
	if err == nil {
		err = p.compilable()
	}
	if err != nil {
		d.wrong(v, "unix", text, err)
	}
	return text, p
}

func parseUnix(text string) (pattern, error) {
	if name, abstract := strings.CutPrefix(text, "@"); abstract {
		return parseAbstract(name)
	}
	p, err := parsePattern(text)
	if err == nil && !p.wild && len(text) > MaxUnixPath {
		err = fmt.Errorf("it has %d bytes: a Unix socket's path has at most %d, shorten it", len(text), MaxUnixPath)
	}
	return p, err
}

func (d *decoder) ports(n *yaml.Node) []PortSpan {
	var spans []PortSpan
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.errorf(n, "name a port, or remove the field to mean all ports", "ports is empty")
	}
	d.list(n, "ports", func(v *yaml.Node) {
		span, err := parsePorts(v)
		if err != nil {
			d.wrong(v, "port", v.Value, err)
			return
		}
		for _, s := range spans {
			if span.Low <= s.High && s.Low <= span.High {
				d.errorf(v, "remove or shorten one of them", "ports %s and %s overlap", s, span)
				return
			}
		}
		spans = append(spans, span)
	})
	if len(spans) > MaxPorts {
		d.errorf(n, "join neighbours to ranges", "ports has %d entries, more than the %d possible", len(spans), MaxPorts)
	}
	return spans
}

// leadingZero: YAML may take such a number for an octal one.
func leadingZero(s string) bool { return len(s) > 1 && s[0] == '0' }

func parsePorts(v *yaml.Node) (PortSpan, error) {
	if v.Kind != yaml.ScalarNode {
		return PortSpan{}, errors.New(`it is no port: write a number, or a range as "8000-8099"`)
	}
	return ParsePorts(v.Value)
}

// ParsePorts returns the ports of "443" or "8000-8099". The error says what would
// be right.
func ParsePorts(text string) (PortSpan, error) {
	low, high, ranged := strings.Cut(text, "-")
	if !ranged {
		high = low
	}
	a, errA := strconv.ParseUint(low, 10, 16)
	b, errB := strconv.ParseUint(high, 10, 16)
	switch {
	case errA != nil || errB != nil || leadingZero(low) || leadingZero(high):
		return PortSpan{}, errors.New(`it is no port: write a number from 0 to 65535, or a range as "8000-8099"`)
	case a > b:
		return PortSpan{}, fmt.Errorf(`the range is reversed: write "%d-%d"`, b, a)
	}
	return PortSpan{uint16(a), uint16(b)}, nil
}
