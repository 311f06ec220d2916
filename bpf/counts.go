// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Count is how many verdicts of a kind an agent got.
type Count struct {
	Agent         uint32
	Kind, Verdict string
	N             uint64
}

// Counts returns the verdicts of each agent, and the events each lost because
// the ring was full, since the programs were loaded.
func (e *Enforcer) Counts() (verdicts []Count, dropped map[uint32]uint64, err error) {
	dropped = map[uint32]uint64{}
	for _, agent := range e.Agents() {
		var cpus []enforcerCounters
		if err := e.maps[enforcerMapCounts].Lookup(agent, &cpus); err != nil {
			return nil, nil, fmt.Errorf("read the counts of agent %d: %w", agent, err)
		}
		var sum enforcerCounters
		for i := range cpus {
			sum.Dropped += cpus[i].Dropped
			for j, n := range cpus[i].Verdicts {
				sum.Verdicts[j] += n
			}
		}
		dropped[agent] = sum.Dropped
		for j, n := range sum.Verdicts {
			verdicts = append(verdicts, Count{
				Agent: agent, N: n,
				Kind:    name(kindNames(), j/int(enforcerVerdictVERDICT_COUNT)),
				Verdict: name(verdictNames(), j%int(enforcerVerdictVERDICT_COUNT)),
			})
		}
	}
	return verdicts, dropped, nil
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
