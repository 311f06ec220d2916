// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"
	"time"
)

// denials sums up what events say, and how many they are.
func denials(events []*Event, session uint64) (acts uint64, told int) {
	for _, ev := range events {
		if ev.Session == session && ev.Verdict == "deny" {
			acts += ev.Count
			told++
		}
	}
	return acts, told
}

// settled returns what was told, after nothing was repeated for so long that all is.
func (k *kernel) settled(t *testing.T) []*Event {
	t.Helper()
	time.Sleep(1100 * time.Millisecond)
	if err := k.FlushFolds(0); err != nil {
		t.Fatal(err)
	}
	return k.events(t)
}

// What is repeated is told once a second, and counted exactly.
func TestRepeats(t *testing.T) {
	k := basic(t)
	network(t)
	s := k.start(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [80]}"}})
	k.settled(t)
	const times = 500
	fd := s.socketOf("dgram", "")
	for range times {
		s.denied("sendto", fd, "127.0.0.1:9")
		s.denied("sendto", fd, "127.0.0.1:10")
	}
	events := k.settled(t)
	acts, told := denials(events, s.info.ID)
	if acts != 2*times || told > 2*times/10 || told < 4 {
		t.Errorf("%d denials in %d events, want %d in a few", acts, told, 2*times)
	}
	ports := map[uint16]uint64{}
	for _, ev := range events {
		if ev.Session == s.info.ID {
			ports[ev.Port] += ev.Count
		}
	}
	if ports[9] != times || ports[10] != times {
		t.Errorf("by port: %v", ports)
	}
}

// One that floods is not heard for a while; its neighbour is, and all is counted.
func TestFlood(t *testing.T) {
	k := basic(t)
	network(t)
	tell := k.tell
	k.tell = Tell{Rate: 50, Burst: 100}
	defer func() {
		k.tell = tell
		if err := k.setGlobal(); err != nil {
			t.Error(err)
		}
	}()
	if err := k.setGlobal(); err != nil {
		t.Fatal(err)
	}
	s := k.start(t, rules{})
	neighbour := k.session(t, "spiffe://local/agent/quiet")
	k.events(t)
	_, before, err := k.Counts()
	if err != nil {
		t.Fatal(err)
	}
	const times = 2000
	fd := s.socketOf("dgram", "")
	for port := range times {
		s.denied("sendto", fd, fmt.Sprint("127.0.0.1:", 1000+port))
	}
	quiet := neighbour.socketOf("dgram", "")
	for port := range 20 {
		neighbour.denied("sendto", quiet, fmt.Sprint("127.0.0.1:", 1000+port))
	}
	events := k.events(t)
	acts, told := denials(events, s.info.ID)
	_, after, err := k.Counts()
	if err != nil {
		t.Fatal(err)
	}
	dropped := after[testSubject] - before[testSubject]
	if acts+dropped != times || told > times/2 {
		t.Errorf("%d denials in %d events, and %d are counted as not told; want %d", acts, told, dropped, times)
	}
	if acts, _ := denials(events, neighbour.info.ID); acts != 20 {
		t.Errorf("the neighbour's denials: %d, want 20", acts)
	}
}

// What waits in the ring for a daemon that is not there is at most a part of it
// for each agent.
func TestRingShare(t *testing.T) {
	k := basic(t)
	network(t)
	s := k.start(t, rules{})
	neighbour := k.session(t, "spiffe://local/agent/still")
	k.events(t)
	fd := s.socketOf("dgram", "")
	for port := range 3000 {
		s.denied("sendto", fd, fmt.Sprint("127.0.0.1:", 1000+port))
	}
	quiet := neighbour.socketOf("dgram", "")
	for port := range 50 {
		neighbour.denied("sendto", quiet, fmt.Sprint("127.0.0.1:", 1000+port))
	}
	events := k.events(t)
	_, told := denials(events, s.info.ID)
	if fit := int(k.maps[enforcerMapEvents].MaxEntries()) / eventSize; told > fit*3/4 || told < fit/4 {
		t.Errorf("%d events of one agent were in the ring, which has room for %d", told, fit)
	}
	if acts, _ := denials(events, neighbour.info.ID); acts != 50 {
		t.Errorf("the neighbour's denials: %d, want 50", acts)
	}
	s.denied("sendto", fd, "127.0.0.1:999")
	if acts, _ := denials(k.events(t), s.info.ID); acts != 1 {
		t.Error("it is not heard after the ring was read")
	}
}
