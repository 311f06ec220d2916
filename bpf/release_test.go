// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// none is what ReleaseAgents is told where all sessions are in the kernel's table.
func none(string) bool { return false }

// giveBack takes their numbers from all agents that have ended.
func (k *kernel) giveBack(t *testing.T) error {
	t.Helper()
	err := k.ReleaseAgents(k.reader, none)
	if full := (*NumbersError)(nil); err != nil && !errors.As(err, &full) {
		t.Fatal(err)
	}
	k.GiveAgain()
	return err
}

// number returns an agent's number, one that another had if there is no other.
func (k *kernel) number(t *testing.T, agent string) uint32 {
	t.Helper()
	n, err := k.AgentNumber(agent, testSubject)
	if full := (*NumbersError)(nil); errors.As(err, &full) {
		k.giveBack(t)
		n, err = k.AgentNumber(agent, testSubject)
	}
	if err != nil {
		t.Fatalf("number %s: %v", agent, err)
	}
	return n
}

// heir returns an agent that has a number which another had.
func (k *kernel) heir(t *testing.T, number uint32) string {
	t.Helper()
	for i := range 2 * maxNumber {
		agent := fmt.Sprint("spiffe://local/agent/heir", i)
		if n := k.number(t, agent); n == number {
			return agent
		}
	}
	t.Fatalf("nobody got number %d", number)
	return ""
}

// kill ends a session's process, and takes the session out of the kernel's table.
func (s *confined) kill(t *testing.T) {
	t.Helper()
	s.cmd.Process.Kill()
	s.cmd.Wait()
	if err := s.k.RemoveSession(s.info.Cgroup); err != nil {
		t.Fatal(err)
	}
}

// More agents than there are numbers have sessions, one after the other. One that
// goes on keeps its number, and is judged as ever.
func TestMoreAgentsThanNumbers(t *testing.T) {
	k := basic(t)
	network(t)
	s := k.start(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [80]}"}})
	t.Cleanup(func() { k.giveBack(t) }) // the next test's sets are put in force for all that have a number
	given := map[uint32]int{}
	for i := range maxNumber + 200 {
		number := k.number(t, fmt.Sprint("spiffe://local/agent/n", i))
		if number == s.info.Agent || number == 0 || int(number) > maxNumber {
			t.Fatalf("agent %d got number %d", i, number)
		}
		given[number]++
		session := Session{ID: 1<<32 + uint64(i), Agent: number, Cgroup: 1<<40 + uint64(i)}
		if err := errors.Join(k.AddSession(session), k.RemoveSession(session.Cgroup)); err != nil {
			t.Fatal(err)
		}
		if i%400 == 0 {
			k.apply(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [80, 81]}"}})
			k.apply(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [80]}"}})
		}
	}
	if len(given) >= maxNumber+200 || k.AgentName(s.info.Agent) != testSubject {
		t.Errorf("%d numbers were given; %d is of %q", len(given), s.info.Agent, k.AgentName(s.info.Agent))
	}
	s.want(111, "connect", s.socketOf("stream", ""), "127.0.0.1:80")
	s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
}

// What an agent did is told of it, however late it is read: until then nobody else
// gets its number. Who does then begins as new.
func TestHeir(t *testing.T) {
	k := basic(t)
	network(t)
	tell := k.tell
	k.tell = Tell{Rate: 1, Burst: 50}
	defer func() {
		k.tell = tell
		if err := k.setGlobal(); err != nil {
			t.Error(err)
		}
		k.giveBack(t)
	}()
	if err := k.setGlobal(); err != nil {
		t.Fatal(err)
	}
	k.apply(t, rules{})
	const first = "spiffe://local/agent/first"
	s := k.session(t, first)
	number := s.info.Agent
	k.events(t)
	_, before := k.countedOf(t, first)
	s.tell(1000, 80) // 50 of them are told, and it can tell no more
	s.kill(t)
	told := k.read(t)
	k.giveBack(t)
	if len(told) < 40 || k.AgentName(number) != first {
		t.Fatalf("%d events wait, and number %d is %q's", len(told), number, k.AgentName(number))
	}
	for _, ev := range told {
		if ev.Agent != number || k.AgentName(ev.Agent) != first {
			t.Fatalf("an event of %s is told of %q", first, k.AgentName(ev.Agent))
		}
	}
	denied, dropped := k.countedOf(t, first)
	if err := k.reader.Commit(told[len(told)-1].Position); err != nil {
		t.Fatal(err)
	}
	heir := k.session(t, k.heir(t, number))
	if heir.info.Agent != number || k.AgentName(number) == first {
		t.Fatalf("number %d is %q's", number, k.AgentName(number))
	}
	if n, d := k.countedOf(t, k.AgentName(number)); n != 0 || d != 0 {
		t.Errorf("the heir begins with %d denials and %d acts that were not told", n, d)
	}
	if n, d := k.countedOf(t, first); n != denied || d != dropped || d <= before {
		t.Errorf("%d denials and %d acts that were not told are left of %d and %d", n, d, denied, dropped)
	}
	k.events(t)
	heir.tell(1000, 40)
	if events := k.read(t); len(events) < 40 || k.AgentName(events[0].Agent) == first {
		t.Errorf("the heir could tell of %d acts, want all of 40", len(events))
	}
	k.events(t)
	k.restarted(t, first, dropped)
}

// restarted checks that a later life knows how many acts of an agent were not told.
func (k *kernel) restarted(t *testing.T, agent string, dropped uint64) {
	t.Helper()
	_, written := k.Numbering()
	_, agents := reload(t, k, func() {})
	k.RestoreAgents(agents, written)
	if _, d := k.countedOf(t, agent); d != dropped {
		t.Errorf("after a restart %d acts were not told, want %d", d, dropped)
	}
}

// countedOf returns how many connections an agent was denied, and how many of its
// acts were not told.
func (k *kernel) countedOf(t *testing.T, agent string) (denied, dropped uint64) {
	t.Helper()
	return k.counted(t, agent, "network", "deny")
}

// Where every agent with a number has a session, the error says what would help.
func TestAllNumbersHeld(t *testing.T) {
	k := basic(t)
	k.apply(t, rules{})
	k.settled(t)
	k.giveBack(t)
	var made []uint64
	defer func() {
		for _, cgroup := range made {
			if err := k.RemoveSession(cgroup); err != nil {
				t.Error(err)
			}
		}
		k.giveBack(t)
	}()
	for i := 0; ; i++ {
		number, err := k.AgentNumber(fmt.Sprint("spiffe://local/agent/n", i), testSubject)
		if full := (*NumbersError)(nil); errors.As(err, &full) {
			break
		}
		session := Session{ID: 1<<32 + uint64(i), Agent: number, Cgroup: 1<<40 + uint64(i)}
		if err := errors.Join(err, k.AddSession(session)); err != nil {
			t.Fatal(err)
		}
		made = append(made, session.Cgroup)
	}
	var full *NumbersError
	if err := k.giveBack(t); !errors.As(err, &full) || full.Sessions != maxNumber || len(made) != maxNumber ||
		!strings.Contains(err.Error(), "end sessions") {
		t.Fatalf("%d sessions: %v", len(made), err)
	}
	if err := k.RemoveSession(made[7]); err != nil {
		t.Fatal(err)
	}
	if number := k.number(t, "spiffe://local/agent/another"); k.AgentName(number) != "spiffe://local/agent/another" {
		t.Errorf("number %d", number)
	}
}

// A process that somebody moved out of its session's cgroup is judged by its label
// as long as it lives, so its agent keeps the number.
func TestMovedKeepsNumber(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/f")
	k.apply(t, rules{files: []string{path("read", root)}})
	s := k.session(t, "spiffe://local/agent/moved")
	s.enter(kerneltest.CgroupRoot(t))
	if err := k.RemoveSession(s.info.Cgroup); err != nil {
		t.Fatal(err)
	}
	k.events(t)
	k.giveBack(t)
	if name := k.AgentName(s.info.Agent); name != "spiffe://local/agent/moved" {
		t.Fatalf("its number is %q's", name)
	}
	s.allowed("open", root+"/f", "r")
	s.kill(t)
	k.events(t)
	k.giveBack(t)
	if name := k.AgentName(s.info.Agent); name != "" {
		t.Errorf("after its end its number is %q's", name)
	}
}

// All processes are met, each as often as it is looked.
func TestEachProcess(t *testing.T) {
	if err := CheckNamespace(); err != nil {
		t.Skip(kerneltest.SkipReason + "namespace: " + err.Error())
	}
	met := map[int]int{}
	last := 0
	if err := visitProcesses(func(pid int) error {
		if pid <= last {
			t.Errorf("%d is met after %d", pid, last)
		}
		last = pid
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := eachProcess(func(pid int) error { met[pid]++; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{1, os.Getpid(), os.Getppid()} {
		if met[pid] < 2 {
			t.Errorf("process %d is met %d times", pid, met[pid])
		}
	}
	if err := eachProcess(func(int) error { return unix.EIO }); !errors.Is(err, unix.EIO) {
		t.Errorf("an error of a visit: %v", err)
	}
}

// Of the agents without a number a bounded lot is known apart, and no sum of all
// gets smaller.
func TestPastIsBounded(t *testing.T) {
	p := newPast()
	one := enforcerCounters{Dropped: 1}
	one.Verdicts[3] = 2
	numbered := map[string]uint32{"a0": 1}
	const agents = 3 * maxPast
	for i := range agents {
		p.add(fmt.Sprint("a", i), &one, numbered)
		p.add("again", &one, numbered)
	}
	var sum uint64
	for _, v := range p.verdicts {
		sum += v[3]
	}
	if sum != 2*2*agents || len(p.verdicts) != maxPast+2 || len(p.order) != maxPast+1 {
		t.Errorf("%d of %d verdicts of %d agents", sum, 2*2*agents, len(p.verdicts))
	}
	if p.verdicts["a0"][3] != 2 || p.verdicts["again"][3] != 2*agents || !slices.Contains(p.order, fmt.Sprint("a", agents-1)) {
		t.Errorf("a0: %v, again: %v", p.verdicts["a0"], p.verdicts["again"])
	}
	if p.dropped["a1"] != 1 || len(p.dropped) != agents+1 {
		t.Errorf("what was dropped is known of %d agents, want all", len(p.dropped))
	}
}
