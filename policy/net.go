// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

var (
	errTooManyRanges   = fmt.Errorf("more than %d port ranges", MaxPortRanges)
	errTooManyPrefixes = fmt.Errorf("more than %d network prefixes", MaxPrefixes)
)

// maxNetWork bounds the ranges looked at while compiling, which can be more than
// the table holds: prefixes with equal ranges share them.
const maxNetWork = 50 * MaxPortRanges

// netEntry is one prefix with the rules that name exactly it.
type netEntry struct {
	direction Direction
	prefix    netip.Prefix
	rules     []*netRule
	ranges    []portCell // resolved, with what it inherits
}

// portCell is a port range and how strong the decision in it is: where cells
// overlap the greater rank stands, the earlier rule among equals.
type portCell struct {
	PortRange
	rank uint8
}

// Ranks of the rules of one prefix.
const (
	rankBuiltin uint8 = iota // gives way to whatever names the same address
	rankAllow
	rankDeny
	rankGuard
)

// buildNetTable compiles network rules. Prefixes come sorted, each after the
// shorter ones that contain it, so that a prefix finds what it inherits on a
// stack.
func buildNetTable(rules []netRule) (NetTable, error) {
	entries := groupPrefixes(rules)
	if len(entries) > MaxPrefixes {
		return NetTable{}, errTooManyPrefixes
	}
	table := netTableBuilder{ids: map[string]int{}}
	work := 0
	var stack []*netEntry
	for _, e := range entries {
		for len(stack) > 0 && !stack[len(stack)-1].contains(e) {
			stack = stack[:len(stack)-1]
		}
		e.ranges = ownRanges(e.rules)
		if len(stack) > 0 {
			e.ranges = overlay(stack[len(stack)-1].ranges, e.ranges)
		}
		stack = append(stack, e)
		if work += len(e.ranges); work > maxNetWork {
			return NetTable{}, errTooManyRanges
		}
		if err := table.add(e); err != nil {
			return NetTable{}, err
		}
	}
	return table.out, nil
}

func groupPrefixes(rules []netRule) []*netEntry {
	type key struct {
		direction Direction
		prefix    netip.Prefix
	}
	byKey := map[key]*netEntry{}
	var entries []*netEntry
	for i := range rules {
		r := &rules[i]
		for _, p := range r.prefixes {
			k := key{r.direction, p}
			if byKey[k] == nil {
				byKey[k] = &netEntry{direction: r.direction, prefix: p}
				entries = append(entries, byKey[k])
			}
			byKey[k].rules = append(byKey[k].rules, r)
		}
	}
	slices.SortFunc(entries, func(a, b *netEntry) int {
		return cmp.Or(
			cmp.Compare(a.direction, b.direction),
			a.prefix.Addr().Compare(b.prefix.Addr()),
			cmp.Compare(a.prefix.Bits(), b.prefix.Bits()),
		)
	})
	return entries
}

func (e *netEntry) contains(other *netEntry) bool {
	return e.direction == other.direction && e.prefix.Bits() <= other.prefix.Bits() && e.prefix.Contains(other.prefix.Addr())
}
