// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// allocator hands out numbers of map entries. What is free is a list of ranges,
// so that a ruleset's states stay together.
type allocator struct {
	states, globs, nets, portSets ranges
	edges, addresses, ports       budget
}

func (a *allocator) init(maps map[string]*ebpf.Map) {
	a.states = newRanges("states", "states", maps[enforcerMapStates].MaxEntries())
	a.globs = newRanges("glob nodes", "globNodes", maps[enforcerMapGlobs].MaxEntries())
	a.nets = newRanges("address tables", "", 1<<31)
	a.portSets = newRanges("port sets", "", 1<<31)
	a.edges = budget{what: "transitions", key: "transitions", max: maps[enforcerMapEdges].MaxEntries()}
	a.addresses = budget{what: "addresses", key: "addresses", max: maps[enforcerMapAddresses].MaxEntries()}
	a.ports = budget{what: "port ranges", key: "ports", max: maps[enforcerMapPorts].MaxEntries()}
}

// CapacityError says that a map is too small for the policies.
type CapacityError struct {
	What       string
	Key        string // of the daemon's configuration, below capacity; "": it is fixed
	Need, Free uint32
	Max        uint32
}

func (e *CapacityError) Error() string {
	remedy := "use fewer"
	if e.Key != "" {
		remedy = "raise capacity." + e.Key + " in bailiffd's configuration, or use fewer rules"
	}
	return fmt.Sprintf("the kernel's table of %s is full: %d more are needed, %d of %d are free; %s",
		e.What, e.Need, e.Free, e.Max, remedy)
}

// span is the numbers from to from+n-1.
type span struct{ from, n uint32 }

// ranges are free numbers. Number 0 always means "none" to the programs.
type ranges struct {
	what, key string
	max       uint32
	free      []span // sorted, not adjacent
}

func newRanges(what, key string, entries uint32) ranges {
	return ranges{what: what, key: key, max: entries - 1, free: []span{{1, entries - 1}}}
}

func (r *ranges) take(n uint32) (span, error) {
	if n == 0 {
		return span{}, nil
	}
	for i, f := range r.free {
		if f.n < n {
			continue
		}
		if r.free[i] = (span{f.from + n, f.n - n}); f.n == n {
			r.free = slices.Delete(r.free, i, i+1)
		}
		return span{f.from, n}, nil
	}
	return span{}, &CapacityError{What: r.what, Key: r.key, Need: n, Free: r.available(), Max: r.max}
}

func (r *ranges) give(s span) {
	if s.n == 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(r.free, s, func(a, b span) int { return int(int64(a.from) - int64(b.from)) })
	r.free = slices.Insert(r.free, i, s)
	for j := max(i-1, 0); j+1 < len(r.free) && j <= i; {
		if r.free[j].from+r.free[j].n != r.free[j+1].from {
			j++
			continue
		}
		r.free[j].n += r.free[j+1].n
		r.free = slices.Delete(r.free, j+1, j+2)
	}
}

func (r *ranges) available() uint32 {
	var n uint32
	for _, f := range r.free {
		n += f.n
	}
	return n
}

// budget counts the entries of a hash or trie.
type budget struct {
	what, key string
	used, max uint32
}

func (b *budget) take(n uint32) error {
	if b.max-b.used < n {
		return &CapacityError{What: b.what, Key: b.key, Need: n, Free: b.max - b.used, Max: b.max}
	}
	b.used += n
	return nil
}
