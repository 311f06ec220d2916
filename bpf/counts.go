// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// Count is how many verdicts of a kind an agent got.
type Count struct {
	Agent         string // "": of agents that had their last session long ago, together
	Kind, Verdict string
	N             uint64
}

// Counts returns the verdicts of each agent, and how many of its acts were not
// told, for want of room in the ring or because it tells too much, since the
// programs were loaded: whatever numbers it had. Verdicts under numbers that an
// agent has no more are forgotten when this process ends.
func (e *Enforcer) Counts() (verdicts []Count, dropped map[string]uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dropped = maps.Clone(e.past.dropped)
	sums := maps.Clone(e.past.verdicts)
	for agent, number := range e.agents {
		now, err := e.countsOf(number)
		if err != nil {
			return nil, nil, err
		}
		dropped[agent] += now.Dropped
		sums[agent] = sums[agent].plus(&now)
	}
	for agent, sum := range sums {
		for j, n := range sum {
			verdicts = append(verdicts, Count{
				Agent: agent, N: n,
				Kind:    name(kindNames(), j/int(enforcerVerdictVERDICT_COUNT)),
				Verdict: name(verdictNames(), j%int(enforcerVerdictVERDICT_COUNT)),
			})
		}
	}
	return verdicts, dropped, nil
}

// countsOf returns what was counted under a number.
func (e *Enforcer) countsOf(number uint32) (sum enforcerCounters, err error) {
	var cpus []enforcerCounters
	if err := e.maps[enforcerMapCounts].Lookup(number, &cpus); err != nil {
		return sum, fmt.Errorf("read the counts of agent %d: %w", number, err)
	}
	for i := range cpus {
		sum.Dropped += cpus[i].Dropped
		sum.Verdicts = verdictSums(sum.Verdicts).plus(&cpus[i])
	}
	return sum, nil
}

// verdictSums are the verdicts of an agent, as enforcerCounters has them.
type verdictSums [len(enforcerCounters{}.Verdicts)]uint64

func (s verdictSums) plus(c *enforcerCounters) verdictSums {
	for i, n := range c.Verdicts {
		s[i] += n
	}
	return s
}

// past is what was counted of agents under numbers that they have no more.
type past struct {
	dropped  map[string]uint64 // acts that were not told; without those that have none
	verdicts map[string]verdictSums
	order    []string // of those in verdicts, the one that lost its number last is last
}

// maxPast bounds of how many agents without a number the verdicts are known apart.
const maxPast = 1024

func newPast() past {
	return past{dropped: map[string]uint64{}, verdicts: map[string]verdictSums{}}
}

// add notes what was counted of an agent that loses its number; numbered are those
// that have one, whose sums must not get smaller.
func (p *past) add(agent string, c *enforcerCounters, numbered map[string]uint32) {
	if c.Dropped > 0 {
		p.dropped[agent] += c.Dropped
	}
	p.verdicts[agent] = p.verdicts[agent].plus(c)
	p.order = append(slices.DeleteFunc(p.order, func(a string) bool { return a == agent }), agent)
	idle := slices.DeleteFunc(slices.Clone(p.order), func(a string) bool { return numbered[a] != 0 })
	for _, old := range idle[:max(len(idle)-maxPast, 0)] {
		p.verdicts[""] = p.verdicts[""].plus(&enforcerCounters{Verdicts: p.verdicts[old]})
		delete(p.verdicts, old)
		p.order = slices.DeleteFunc(p.order, func(a string) bool { return a == old })
	}
}

// MapUse is how full a map is.
type MapUse struct {
	Name           string
	Used, Capacity uint64
}

// Maps returns the use of the maps that can fill up.
func (e *Enforcer) Maps() ([]MapUse, error) {
	sessions, err := e.Sessions()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &e.rules
	numbers := func(name string, n *ranges) MapUse {
		return MapUse{name, uint64(n.max - n.available()), uint64(n.max)}
	}
	entries := func(name string, b *budget) MapUse { return MapUse{name, uint64(b.used), uint64(b.max)} }
	whole := func(name string, used int, m *ebpf.Map) MapUse {
		return MapUse{name, uint64(used), uint64(m.MaxEntries())}
	}
	return []MapUse{
		numbers(enforcerMapStates, &r.states),
		entries(enforcerMapEdges, &r.edges),
		numbers(enforcerMapGlobs, &r.globs),
		entries(enforcerMapAddresses, &r.addresses),
		entries(enforcerMapPorts, &r.ports),
		whole(enforcerMapSessions, len(sessions), e.maps[enforcerMapSessions]),
		whole(enforcerMapAgents, len(e.agents), e.maps[enforcerMapAgents]),
		whole(enforcerMapGrants, len(e.grants.issued), e.maps[enforcerMapGrants]),
		whole(enforcerMapHomes, len(e.homes), e.maps[enforcerMapHomes]),
	}, nil
}

// Latency is how long sampled decisions about paths took.
type Latency struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[time.Duration]uint64 // decisions that took less, by bound
}

// Latency returns the times of decisions since the programs were loaded; one of
// a thousand is timed.
func (e *Enforcer) Latency() (Latency, error) {
	var cpus []enforcerLatency
	if err := e.maps[enforcerMapLatencies].Lookup(uint32(0), &cpus); err != nil {
		return Latency{}, fmt.Errorf("read the times of decisions: %w", err)
	}
	l := Latency{Buckets: map[time.Duration]uint64{}}
	for i := range int(enforcerLimitsLATENCY_BUCKETS) {
		for _, cpu := range cpus {
			l.Count += cpu.Buckets[i]
		}
		if i < int(enforcerLimitsLATENCY_BUCKETS)-1 {
			l.Buckets[64<<i] = l.Count
		}
	}
	for _, cpu := range cpus {
		l.Sum += time.Duration(cpu.Sum)
	}
	return l, nil
}
