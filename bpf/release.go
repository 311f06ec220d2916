// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// ReleaseAgents takes back the numbers of agents of which the kernel has nothing
// any more: no session, no process with their label, no act that waits to be told,
// no event in the ring that is not committed. What was counted stays known by the
// agent's name. The numbers are for others after GiveAgain: until then, the caller
// writes down what Numbering says, and no agent has them on disk or in the kernel.
//
// keep tells of which agents there may be sessions that the kernel does not know
// yet; of those that it does not name, none may be begun until this returns. Where
// nothing can be taken back a *NumbersError says why.
func (e *Enforcer) ReleaseAgents(r *Reader, keep func(agent string) bool) error {
	held, why, err := e.heldNumbers(r)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	numbers := slices.Clone(e.strangers)
	for number, agent := range e.names {
		if keep(agent) && !held[number] {
			held[number] = true
			why.Sessions++
		}
		numbers = append(numbers, number)
	}
	for _, number := range numbers {
		if held[number] || e.leaving[number] {
			continue
		}
		if err := e.releaseNumber(r, number); err != nil {
			return err
		}
	}
	if len(e.leaving) == 0 {
		return why
	}
	return nil
}

// GiveAgain lets others have the numbers that were taken back.
func (e *Enforcer) GiveAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.leaving)
}

// heldNumbers returns the numbers that something in the kernel is of, and how many
// of them there are by what it is. The order matters: what ends while it is being
// looked for comes to be what is looked for next.
func (e *Enforcer) heldNumbers(r *Reader) (held map[uint32]bool, why *NumbersError, err error) {
	held, why = map[uint32]bool{0: true}, &NumbersError{Max: maxNumber}
	hold := func(number uint32, n *int) {
		if !held[number] {
			held[number] = true
			*n++
		}
	}
	sessions, err := e.Sessions()
	if err != nil {
		return nil, nil, err
	}
	for _, s := range sessions {
		hold(s.Agent, &why.Sessions)
	}
	labels, err := e.labelledAgents()
	if err != nil {
		why.Doubt = err
		return nil, nil, why
	}
	for number := range labels {
		hold(number, &why.Processes)
	}
	// A program may still be telling what a process did that has ended by now.
	if err := waitForPrograms(); err != nil {
		return nil, nil, err
	}
	folded, err := e.foldedAgents()
	if err != nil {
		return nil, nil, err
	}
	waiting, err := r.waitingAgents()
	if err != nil {
		return nil, nil, err
	}
	for number := range folded {
		hold(number, &why.Untold)
	}
	for number := range waiting {
		hold(number, &why.Untold)
	}
	return held, why, nil
}

// foldedAgents returns the numbers of those of whose repeated acts some are not told.
func (e *Enforcer) foldedAgents() (map[uint32]bool, error) {
	agents := map[uint32]bool{}
	var cursor ebpf.MapBatchCursor
	slots, folds := make([]uint32, 1024), make([]enforcerFold, 1024)
	for {
		n, err := e.maps[enforcerMapFolds].BatchLookup(&cursor, slots, folds, nil)
		for i := range n {
			if folds[i].Count > 0 {
				agents[folds[i].Act.Agent] = true
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return agents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for acts that are not told: %w", err)
		}
	}
}

// releaseNumber takes a number from whoever has it; e.mu is held. Nothing of the
// kernel's goes by it any more.
func (e *Enforcer) releaseNumber(r *Reader, number uint32) error {
	for slot := range 2 {
		if err := e.writeAgent(number, slot, nil); err != nil {
			return err
		}
	}
	if err := r.forget(number); err != nil {
		return err
	}
	if agent := e.names[number]; agent != "" {
		counts, err := e.countsOf(number)
		if err != nil {
			return err
		}
		delete(e.agents, agent)
		delete(e.names, number)
		e.past.add(agent, &counts, e.agents)
	}
	delete(e.unwritten, number)
	e.strangers = slices.DeleteFunc(e.strangers, func(n uint32) bool { return n == number })
	e.leaving[number] = true
	return nil
}
