// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/bpf"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// applyTo puts a policy about all agents of a trust domain in force.
func (d *fuzzed) applyTo(t testing.TB, subject string) {
	t.Helper()
	text := "apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec:\n  subject: {spiffeID: \"" + subject +
		"\"}\n  network: [{allow: connect, ip: 127.0.0.1, ports: [80]}]\n"
	request := connect.NewRequest(&controlv1.ApplyPoliciesRequest{Files: []*controlv1.PolicyFile{{Name: "p.yaml", Content: []byte(text)}}})
	if answer, err := d.ApplyPolicies(context.Background(), request); err != nil || answer.Msg.Generation == 0 {
		t.Fatalf("apply: %v %v", err, answer)
	}
}

// begin makes a session as a launch does, but for a process in it.
func (d *fuzzed) begin(agent string) (*session, error) {
	s := &session{sessionRecord: sessionRecord{Agent: agent, Started: time.Now(), Tier: d.tier(), Recorded: true}}
	s.ID, s.Number = newID()
	d.policies.apply.RLock()
	defer d.policies.apply.RUnlock()
	return s, d.confine(s, agent, func(bpf.Session) error { return nil })
}

// In one life of the daemon more agents have sessions than there are numbers, and
// what is on the disk is what the kernel has. Sessions that go on keep theirs.
func TestMoreAgentsThanNumbers(t *testing.T) {
	d := startFuzzed(t)
	d.applyTo(t, "spiffe://local/agent/*")
	const long, earlier, agents = "spiffe://local/agent/long", 1010, 1040
	running, err := d.begin(long)
	if err != nil {
		t.Fatal(err)
	}
	number := d.kernel.Agents()[long]
	for i := range earlier {
		if _, err := d.kernel.AgentNumber(fmt.Sprint("spiffe://local/agent/n", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	for i := earlier; i < agents; i++ {
		s, err := d.begin(fmt.Sprint("spiffe://local/agent/n", i))
		if err != nil {
			t.Fatalf("agent %d: %v", i, err)
		}
		d.endSession(s)
	}
	var stored storedSessions
	if err := d.store.read(sessionsFile, &stored); err != nil {
		t.Fatal(err)
	}
	last := fmt.Sprint("spiffe://local/agent/n", agents-1)
	now := d.kernel.Agents()
	if len(now) >= agents || now[long] != number || now[last] == 0 || stored.Agents[long] != number || stored.Agents[last] != now[last] {
		t.Errorf("%d agents have numbers; the one that goes on has %d (%d on the disk), and had %d", len(now), now[long], stored.Agents[long], number)
	}
	if !slices.ContainsFunc(stored.Sessions, func(r sessionRecord) bool { return r.ID == running.ID }) {
		t.Error("the session that goes on is not on the disk")
	}
	d.endSession(running)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(d.o)
	if err != nil {
		t.Fatalf("the daemon that returns: %v", err)
	}
	t.Cleanup(func() {
		if err := again.close(); err != nil {
			t.Error(err)
		}
	})
	if !again.kernel.Adopted() || !maps.Equal(again.kernel.Agents(), now) {
		t.Errorf("the daemon that returns has %d agents with numbers, want the same %d", len(again.kernel.Agents()), len(now))
	}
}

// An agent that is about to have a session keeps its number, as those of the
// daemon's own do, though the kernel has nothing of them.
func TestNumbersAreHeld(t *testing.T) {
	d := startFuzzed(t)
	d.applyTo(t, "spiffe://local/agent/*")
	const held, idle = "spiffe://local/agent/held", "spiffe://local/agent/idle"
	number, done, err := d.holdNumber(held)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.kernel.AgentNumber(idle, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.canaryAgents(); err != nil {
		t.Fatal(err)
	}
	release := func() map[string]uint32 {
		d.numbers.mu.Lock()
		defer d.numbers.mu.Unlock()
		if err := d.releaseNumbers(); err != nil {
			t.Fatal(err)
		}
		return d.kernel.Agents()
	}
	if now := release(); now[held] != number || now[idle] != 0 || now[canaryTask] == 0 || now[canaryCgroup] == 0 {
		t.Errorf("while it is held: %v", now)
	}
	done()
	if now := release(); now[held] != 0 || now[canaryTask] == 0 {
		t.Errorf("after that: %v", now)
	}
}

// Where no number can be had, who launches is told what would help.
func TestNoNumberLeft(t *testing.T) {
	d := startFuzzed(t)
	d.applyTo(t, "spiffe://local/agent/*")
	const most = 1023
	for i := range most {
		number, err := d.kernel.AgentNumber(fmt.Sprint("spiffe://local/agent/n", i), "")
		if err == nil {
			err = d.kernel.AddSession(bpf.Session{ID: uint64(i) + 1, Agent: number, Cgroup: 1<<40 + uint64(i)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.begin("spiffe://local/agent/more")
	var full *bpf.NumbersError
	if !errors.As(err, &full) || full.Sessions != most {
		t.Fatalf("one more: %v", err)
	}
	if err := launchError(err); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "bailiff sessions stop") {
		t.Errorf("who launches is told: %v", err)
	}
}
