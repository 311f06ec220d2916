// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// Set is a set of policies to put in force.
type Set struct {
	// Rulesets by subject, as policy.CompileAll makes them.
	Rulesets []*policy.Ruleset
	// Agents maps each agent that has a number (see AgentNumber) to the subject
	// whose ruleset judges it; without one, everything is denied to it.
	Agents map[string]string
}

// Apply puts a set in force, in place of the one before, in one step: until the
// generation is written the old set judges, from then on the new one. Rulesets
// that did not change are not written again. On an error the old set stays.
func (e *Enforcer) Apply(set Set) (generation uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, err := e.globals()
	if err != nil {
		return 0, err
	}
	next := map[string]*loaded{}
	var fresh []*loaded
	abort := func(err error) (uint64, error) {
		for _, l := range fresh {
			err = errors.Join(err, e.drop(l))
		}
		return 0, err
	}
	for _, r := range set.Rulesets {
		if old := e.active[r.Agent]; old != nil && old.digest == r.Digest {
			next[r.Agent] = old
			continue
		}
		l, err := e.put(r)
		if err != nil {
			return abort(fmt.Errorf("load the rules of %s: %w", r.Agent, err))
		}
		fresh = append(fresh, l)
		next[r.Agent] = l
	}
	slot := (now.Generation + 1) & 1
	for agent, number := range e.agents {
		if err := e.writeAgent(number, int(slot), next[set.Agents[agent]]); err != nil {
			return abort(err)
		}
	}
	for _, number := range e.strangers {
		if e.names[number] != "" {
			continue
		}
		if err := e.writeAgent(number, int(slot), nil); err != nil {
			return abort(err)
		}
	}
	now.Generation++
	if err := e.setGlobals(now); err != nil {
		return abort(err)
	}
	old := e.active
	e.active = next
	return now.Generation, e.retire(old)
}

// retire removes the rulesets that are no longer in force, once no program can
// still be walking them.
func (e *Enforcer) retire(old map[string]*loaded) error {
	gone := maps.Clone(old)
	for subject, l := range e.active {
		if gone[subject] == l {
			delete(gone, subject)
		}
	}
	// Also where no rules go: the next Apply writes the slot that the old generation reads.
	if err := waitForPrograms(); err != nil {
		return err
	}
	var errs []error
	for _, l := range gone {
		errs = append(errs, e.drop(l))
	}
	return errors.Join(errs...)
}

// waitForPrograms returns when every program that was running when it was called
// has ended: they run as RCU readers, and this command waits for a grace period.
func waitForPrograms() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	if errno == unix.EINVAL {
		// Hosts with nohz_full CPUs refuse it. A program runs for microseconds.
		time.Sleep(time.Second)
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("wait for running programs: %w", errno)
	}
	return nil
}

// writeAgent fills one slot of an agent; without a ruleset it denies everything.
func (e *Enforcer) writeAgent(number uint32, slot int, l *loaded) error {
	var a enforcerAgent
	if err := e.maps[enforcerMapAgents].Lookup(number, &a); err != nil {
		return fmt.Errorf("read agent %d: %w", number, err)
	}
	a.Start[slot], a.NetOut[slot], a.NetIn[slot], a.Self[slot], a.Flags[slot] = 0, 0, 0, 0, 0
	a.Capabilities[slot] = 0
	if l != nil {
		a.Start[slot] = l.states.from
		a.NetOut[slot] = l.table(policy.Outbound)
		a.NetIn[slot] = l.table(policy.Inbound)
		a.Self[slot], a.Flags[slot] = l.self, l.flags
		a.Capabilities[slot] = l.capabilities
	}
	if err := e.maps[enforcerMapAgents].Update(number, &a, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("write agent %d: %w", number, err)
	}
	return nil
}

// Generation returns the number of the set in force.
func (e *Enforcer) Generation() (uint64, error) {
	g, err := e.globals()
	return g.Generation, err
}

func (e *Enforcer) globals() (g globals, err error) {
	raw, err := e.maps[bssMap].LookupBytes(uint32(0))
	if err == nil {
		err = binary.Read(bytes.NewReader(raw), binary.NativeEndian, &g)
	}
	if err != nil {
		return g, fmt.Errorf("read the generation: %w", err)
	}
	return g, nil
}

func (e *Enforcer) setGlobals(g globals) error {
	if err := e.maps[bssMap].Update(uint32(0), g, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("write the generation: %w", err)
	}
	return nil
}
