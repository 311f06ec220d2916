// SPDX-License-Identifier: Apache-2.0

package bpf

// Options say how to load.
type Options struct {
	// PinDir is a directory on bpffs, made if it is missing. What is loaded is
	// pinned there and goes on without this process.
	PinDir string
	// Cgroup is the directory, on cgroup v2, below which each session has its
	// own cgroup. It exists.
	Cgroup string
	// Level is the depth of a session's cgroup below the hierarchy's root: 2
	// where Cgroup is directly below it.
	Level uint32
	// Full loads the LSM programs too. See Probe.
	Full bool
	// Version is that of what loads: see Digest.
	Version string
	// Ready, where it is set, is called before the programs of another build are
	// replaced. On its error they stay as they are.
	Ready func() error
	// Sizes are capacities of maps; zero is the default.
	Sizes Sizes
	// Tell is how much each agent may tell; zero is the default.
	Tell Tell
}

// Tell bounds the events of one agent. What is beyond is counted as dropped.
type Tell struct {
	Rate  uint32 // a second
	Burst uint32 // at once, after none for a while
}

const (
	tellRate  = 500
	tellBurst = 20000
	// ringShare is the bytes of the ring for each event of one agent that may
	// wait in it when half of it is taken: no more than a quarter of the ring.
	ringShare = 4096
)

func (t Tell) limits() (rate, burst uint64) {
	if t.Rate == 0 {
		t.Rate = tellRate
	}
	if t.Burst == 0 {
		t.Burst = tellBurst
	}
	return uint64(t.Rate), uint64(t.Burst)
}

// Sizes are the configurable capacities. They take memory when loaded: about 40
// bytes a state, 80 a transition, 1 KiB a glob node.
type Sizes struct {
	States      uint32 // of all path automata together, at most 1<<20
	Transitions uint32
	GlobNodes   uint32
	Addresses   uint32 // prefixes
	Ports       uint32 // prefixes of port ranges
	Sessions    uint32
	Grants      uint32 // at once, plus one
	RingBytes   uint32 // events that wait for the daemon; a power of two
}

// each calls a function with each map of configurable capacity.
func (s Sizes) each(entries func(name string, n uint32)) {
	for _, size := range []struct {
		name string
		n    uint32
	}{
		{enforcerMapStates, min(s.States, uint32(enforcerLimitsMAX_STATES))},
		{enforcerMapEdges, s.Transitions},
		{enforcerMapGlobs, s.GlobNodes},
		{enforcerMapAddresses, s.Addresses},
		{enforcerMapPorts, s.Ports},
		{enforcerMapSessions, s.Sessions},
		{enforcerMapGrants, s.Grants},
		{enforcerMapGrantPaths, 2 * s.Grants},
		{enforcerMapGrantNets, 2 * s.Grants},
		{enforcerMapEvents, s.RingBytes},
	} {
		entries(size.name, size.n)
	}
}
