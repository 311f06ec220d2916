// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Check reports what is wrong among documents that are each right: names used
// twice. Call it on all documents that are to be applied together.
func Check(docs []Document) Problems {
	var ps Problems
	first := map[string]Position{}
	for i := range docs {
		d := &docs[i]
		if d.Name == "" {
			continue
		}
		if pos, ok := first[d.Name]; ok {
			ps = append(ps, Problem{
				Severity: Error, Pos: d.Pos,
				Message: fmt.Sprintf("the name %q is used already at %s", d.Name, pos),
				Fix:     "choose another metadata.name: names are unique, policies and guardrails together",
			})
			continue
		}
		first[d.Name] = d.Pos
	}
	ps.Sort()
	return ps
}

// checkFileLines reports lines of one document that contradict or repeat one
// another: the same pattern, and a right in both.
func (d *decoder) checkFileLines(lines []FileLine) {
	byPattern := make(map[string][]int, len(lines))
	for i := range lines {
		l := &lines[i]
		if l.Allow|l.Deny == 0 {
			continue // wrong in itself, and reported
		}
		key := l.pattern.key()
		before := d.errors
		for _, j := range byPattern[key] {
			d.compareLines(l, &lines[j])
		}
		if d.errors == before { // so that no pattern has more lines than there are rights
			byPattern[key] = append(byPattern[key], i)
		}
	}
}

func (d *decoder) compareLines(l, other *FileLine) {
	if both := l.Allow&other.Deny | l.Deny&other.Allow; both != 0 {
		d.errorAt(l.Pos, "remove it from one of them; both together are a deny", "path %q is both allowed and denied: %s, see %s", l.Path, both, other.Pos)
	}
	if both := l.Allow&other.Allow | l.Deny&other.Deny; both != 0 {
		d.errorAt(l.Pos, "remove it from one of them", "path %q has %s twice, see %s", l.Path, both, other.Pos)
	}
}

// checkNetworkLines does the same for network lines: the same direction and
// prefix, or Unix socket, and a port and transport in both.
func (d *decoder) checkNetworkLines(lines []NetworkLine) {
	type target struct {
		action Action
		prefix netip.Prefix
		name   string
	}
	seen := map[target]*spanIndex{}
	for i := range lines {
		l := &lines[i]
		if l.Allow == "" && l.Deny == "" {
			continue // wrong in itself, and reported
		}
		t := target{action: l.Allow + l.Deny}
		switch {
		case l.Unix != "":
			t.name = "unix" + l.pattern.key()
		case l.Host != "":
			t.name = "host" + l.Host
		case l.To != "":
			t.name = "self"
		}
		for _, p := range append(l.prefixes, make([]netip.Prefix, max(0, 1-len(l.prefixes)))...) {
			t.prefix = p
			if seen[t] == nil {
				seen[t] = &spanIndex{}
			}
			if other, deny, ok := seen[t].add(l); ok {
				d.networkClash(l, other, deny)
				break
			}
		}
	}
}

func (d *decoder) networkClash(l *NetworkLine, other Position, otherDeny bool) {
	if otherDeny == (l.Deny != "") {
		d.errorAt(l.Pos, "remove one of them", "%s repeats what %s says", networkLineText(l), other)
		return
	}
	d.errorAt(l.Pos, "remove the port from one of them; both together are a deny", "%s and %s allow and deny the same", networkLineText(l), other)
}

// spanIndex is the port ranges seen for one target, sorted, without overlaps.
type spanIndex [2][]spanUse

type spanUse struct {
	PortSpan
	deny bool
	pos  Position
}

// add records a line's ranges. If one overlaps a range recorded before, add
// returns that one and records nothing more.
func (x *spanIndex) add(l *NetworkLine) (other Position, deny, found bool) {
	spans := l.Ports
	if len(spans) == 0 {
		spans = []PortSpan{{0, 65535}}
	}
	for _, t := range l.transports() {
		uses := &x[0]
		if t == UDP {
			uses = &x[1]
		}
		for _, s := range spans {
			i, _ := slices.BinarySearchFunc(*uses, s, func(u spanUse, s PortSpan) int {
				return int(u.High) - int(s.Low)
			})
			if i < len(*uses) && (*uses)[i].Low <= s.High {
				return (*uses)[i].pos, (*uses)[i].deny, true
			}
			*uses = slices.Insert(*uses, i, spanUse{s, l.Deny != "", l.Pos})
		}
	}
	return Position{}, false, false
}

// transports returns what a line's protocol means: a line that says nothing
// allows TCP, or denies both.
func (l *NetworkLine) transports() []Transport {
	switch {
	case l.Protocol == ProtocolTCP, l.Protocol == "" && l.Deny == "":
		return []Transport{TCP}
	case l.Protocol == ProtocolUDP:
		return []Transport{UDP}
	}
	return []Transport{TCP, UDP}
}
