// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// ownRanges resolves the rules of one prefix.
func ownRanges(rules []*netRule) []portCell {
	var cells []portCell
	for _, r := range rules {
		for _, t := range r.transports {
			for _, span := range r.ports {
				cells = append(cells, portCell{PortRange{
					Transport: t, Low: span.Low, High: span.High,
					Allow: !r.deny, Guard: r.guard, Rule: r.number,
				}, r.rank()})
			}
		}
	}
	return flatten(cells)
}

func (r *netRule) rank() uint8 {
	switch {
	case r.builtin:
		return rankBuiltin
	case r.guard:
		return rankGuard
	case r.deny:
		return rankDeny
	}
	return rankAllow
}

// overlay lays a prefix's own ranges over those it inherits. An inherited
// guardrail's deny shows through everything but another guardrail's.
func overlay(inherited, own []portCell) []portCell {
	cells := make([]portCell, 0, len(inherited)+len(own))
	for _, c := range inherited {
		c.rank = 0
		if c.Guard {
			c.rank = 2
		}
		cells = append(cells, c)
	}
	for _, c := range own {
		c.rank = 1
		if c.Guard {
			c.rank = 3
		}
		cells = append(cells, c)
	}
	return flatten(cells)
}

// flatten returns ranges that do not overlap, sorted by transport and port, in
// which every port has the decision of the strongest cell that contained it.
func flatten(cells []portCell) []portCell {
	slices.SortFunc(cells, func(a, b portCell) int {
		return cmp.Or(cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Low, b.Low))
	})
	var out []portCell
	for len(cells) > 0 {
		n := 1
		for n < len(cells) && cells[n].Transport == cells[0].Transport {
			n++
		}
		out = sweep(out, cells[:n])
		cells = cells[n:]
	}
	return out
}

// sweep does the work of flatten for cells of one transport, sorted by Low.
func sweep(out, cells []portCell) []portCell {
	var active []portCell
	for at := 0; len(cells) > 0 || len(active) > 0; {
		if len(active) == 0 {
			at = int(cells[0].Low)
		}
		for len(cells) > 0 && int(cells[0].Low) <= at {
			active, cells = append(active, cells[0]), cells[1:]
		}
		best, end := active[0], 65535
		for _, c := range active {
			if c.rank > best.rank || c.rank == best.rank && c.Rule < best.Rule {
				best = c
			}
			end = min(end, int(c.High))
		}
		if len(cells) > 0 {
			end = min(end, int(cells[0].Low)-1)
		}
		best.Low, best.High = uint16(at), uint16(end)
		out = appendRange(out, best)
		at = end + 1
		active = slices.DeleteFunc(active, func(c portCell) bool { return int(c.High) < at })
	}
	return out
}

// appendRange appends a range, joined with the one before where they are
// neighbours with the same decision.
func appendRange(out []portCell, c portCell) []portCell {
	if n := len(out); n > 0 {
		last := &out[n-1]
		if last.Transport == c.Transport && last.Rule == c.Rule && last.rank == c.rank && int(last.High)+1 == int(c.Low) {
			last.High = c.High
			return out
		}
	}
	return append(out, c)
}

// netTableBuilder assembles a table in which equal port sets are shared.
type netTableBuilder struct {
	out    NetTable
	ids    map[string]int
	ranges int
}

func (b *netTableBuilder) add(e *netEntry) error {
	set := make([]PortRange, len(e.ranges))
	var key []byte
	for i, c := range e.ranges {
		set[i] = c.PortRange
		key = appendPortRange(key, &set[i])
	}
	id, ok := b.ids[string(key)]
	if !ok {
		if b.ranges += len(set); b.ranges > MaxPortRanges {
			return errTooManyRanges
		}
		id = len(b.out.PortSets)
		b.ids[string(key)] = id
		b.out.PortSets = append(b.out.PortSets, set)
	}
	b.out.Prefixes = append(b.out.Prefixes, NetPrefix{e.direction, e.prefix, id})
	return nil
}

func appendPortRange(b []byte, r *PortRange) []byte {
	b = append(b, byte(r.Transport))
	b = binary.LittleEndian.AppendUint16(b, r.Low)
	b = binary.LittleEndian.AppendUint16(b, r.High)
	b = append(b, boolByte(r.Allow), boolByte(r.Guard))
	return binary.LittleEndian.AppendUint32(b, uint32(r.Rule))
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Lookup returns the range that decides about an address and port; ok is false
// where none does, which is the default deny. An IPv4-mapped address is looked up
// as IPv4.
func (t *NetTable) Lookup(direction Direction, addr netip.Addr, port uint16, transport Transport) (r PortRange, ok bool) {
	addr = addr.Unmap().WithZone("")
	best := -1
	for i, p := range t.Prefixes {
		if p.Direction == direction && p.Prefix.Contains(addr) && (best < 0 || p.Prefix.Bits() > t.Prefixes[best].Prefix.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return PortRange{}, false
	}
	for _, r := range t.PortSets[t.Prefixes[best].Ports] {
		if r.Transport == transport && r.Low <= port && port <= r.High {
			return r, true
		}
	}
	return PortRange{}, false
}
