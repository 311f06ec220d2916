// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/policy"
)

// numbers guards the kernel's numbers of agents, of which there are about a
// thousand: agents that have ended lose theirs when no other is left.
type numbers struct {
	mu   sync.Mutex     // held while one is given or taken back
	held map[string]int // how many sessions of an agent are about to be made
}

// holdNumber returns the kernel's number of an agent, which stays its own until
// done is called. By then a session of it must be in the kernel's table, or
// nothing goes by the number.
func (d *Daemon) holdNumber(agent string) (number uint32, done func(), err error) {
	n := &d.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	if number, err = d.agentNumber(agent); err != nil {
		return 0, nil, err
	}
	n.held[agent]++
	return number, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.held[agent]--; n.held[agent] == 0 {
			delete(n.held, agent)
		}
	}, nil
}

// agentNumber returns the kernel's number of an agent; d.numbers.mu is held. A new
// one is written down first: a number that the kernel knows and nobody else would
// be used up.
func (d *Daemon) agentNumber(agent string) (uint32, error) {
	fresh, err := d.kernel.NameAgent(agent)
	var full *bpf.NumbersError
	if errors.As(err, &full) {
		if err := d.releaseNumbers(); err != nil {
			return 0, err
		}
		fresh, err = d.kernel.NameAgent(agent)
	}
	if err != nil {
		return 0, err
	}
	if fresh {
		if err := d.saveSessions(); err != nil {
			return 0, err
		}
	}
	subject, _ := policy.SubjectFor(agent, d.policies.subjects)
	return d.kernel.AgentNumber(agent, subject)
}

// releaseNumbers takes their numbers from the agents of which nothing is left, and
// lets others have them once that is written down. What is not in the log yet is of
// the agent that had the number, and holds it.
func (d *Daemon) releaseNumbers() error {
	d.drain()
	running := map[string]bool{}
	for _, s := range d.sessions.list(false) {
		running[s.Agent] = true
	}
	before := len(d.kernel.Agents())
	err := d.kernel.ReleaseAgents(d.reader, func(agent string) bool {
		return ownAgent(agent) || running[agent] || d.numbers.held[agent] > 0
	})
	if err != nil {
		return err
	}
	if err := d.saveSessions(); err != nil {
		return err
	}
	d.kernel.GiveAgain()
	d.log.Info("agents without sessions have lost their numbers", "agents", before-len(d.kernel.Agents()))
	return nil
}

// launchError says why a session could not be started.
func launchError(err error) error {
	var full *bpf.NumbersError
	if errors.As(err, &full) {
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the session could not be started: %w", err))
	}
	return connect.NewError(connect.CodeInternal, fmt.Errorf("the session could not be started: %w: see bailiffd's log", err))
}
