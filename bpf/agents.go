// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// NumbersError says that no agent can have a number, and what holds those that
// there are. It comes of NameAgent, and then has only Max, or of ReleaseAgents.
type NumbersError struct {
	Max       int
	Sessions  int   // numbers of agents that have sessions, or are about to
	Processes int   // of others, that processes have which were moved out of their session's cgroup
	Untold    int   // of others, of which the log does not have all events yet
	Doubt     error // why it is not known which processes there are; nil: it is
}

func (e *NumbersError) Error() string {
	text := fmt.Sprintf("there can be %d agents with sessions at once, and no more: %d have sessions", e.Max, e.Sessions)
	if e.Processes > 0 {
		text += fmt.Sprintf(", %d have processes that somebody moved out of their session's cgroup", e.Processes)
	}
	if e.Untold > 0 {
		text += fmt.Sprintf(", of %d not all that they did is in the log yet", e.Untold)
	}
	if e.Doubt != nil {
		text += fmt.Sprintf(", and it is not known which of them have ended (%v)", e.Doubt)
	}
	return text + ": end sessions of some of them (`bailiff sessions list`, `bailiff sessions stop`), and try again"
}

func (e *NumbersError) Unwrap() error { return e.Doubt }

// AgentNumber returns the number of an agent, giving it one that is judged by
// the ruleset of subject if it has none. A *NumbersError says that there is none.
func (e *Enforcer) AgentNumber(agent, subject string) (uint32, error) {
	if _, err := e.NameAgent(agent); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	number := e.agents[agent]
	if !e.unwritten[number] {
		return number, nil
	}
	for slot := range 2 {
		if err := e.writeAgent(number, slot, e.active[subject]); err != nil {
			return 0, err
		}
	}
	delete(e.unwritten, number)
	return number, nil
}

// NameAgent gives an agent a number that no program uses until AgentNumber is
// called, and tells whether it did: false where the agent has one. A caller can
// write the number down in between; see RestoreAgents. A *NumbersError says that
// there is none: see ReleaseAgents.
func (e *Enforcer) NameAgent(agent string) (fresh bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.agents[agent] != 0 {
		return false, nil
	}
	number := uint32(1)
	for e.names[number] != "" || e.leaving[number] || slices.Contains(e.strangers, number) {
		number++
	}
	if number >= uint32(enforcerLimitsMAX_AGENTS) {
		return false, &NumbersError{Max: maxNumber}
	}
	// Here, and not when it was released: what was counted is written down in between.
	none := make([]enforcerCounters, ebpf.MustPossibleCPU())
	if err := e.maps[enforcerMapCounts].Update(number, none, ebpf.UpdateExist); err != nil {
		return false, fmt.Errorf("clear the counts of agent %d: %w", number, err)
	}
	e.agents[agent], e.names[number], e.unwritten[number] = number, agent, true
	return true, nil
}

// maxNumber is the highest number of an agent; 0 is nobody's.
const maxNumber = int(enforcerLimitsMAX_AGENTS) - 1

// RestoreAgents tells which numbers agents had in an earlier life of the daemon,
// and how many of their acts had not been told under numbers before: what
// Numbering returned.
func (e *Enforcer) RestoreAgents(numbers map[string]uint32, dropped map[string]uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.agents = map[string]uint32{} // numbers is nil on a host where no session ever ran
	maps.Copy(e.agents, numbers)
	for agent, number := range numbers {
		e.names[number] = agent
	}
	maps.Copy(e.past.dropped, dropped)
}

// Numbering returns what RestoreAgents of a later life has to be told.
func (e *Enforcer) Numbering() (numbers map[string]uint32, dropped map[string]uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.agents), maps.Clone(e.past.dropped)
}

// AgentName returns the agent that has a number, or "".
func (e *Enforcer) AgentName(number uint32) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[number]
}

// Agents returns the numbers of all agents that have one.
func (e *Enforcer) Agents() map[string]uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.agents)
}
