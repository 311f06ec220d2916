// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// interrupt does what Apply does with a set that has this ruleset alone, up to a
// point where a daemon can be killed.
func (k *kernel) interrupt(t *testing.T, r *policy.Ruleset, point int) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := k.globals()
	if err != nil {
		t.Fatal(err)
	}
	l, err := k.put(r)
	if err != nil {
		t.Fatal(err)
	}
	if point == written {
		return
	}
	for _, number := range k.agents {
		if err := k.writeAgent(number, int(now.Generation+1)&1, l); err != nil {
			t.Fatal(err)
		}
		if point == halfAgents {
			return
		}
	}
	if point == allAgents {
		return
	}
	now.Generation++
	if err := k.setGlobals(now); err != nil {
		t.Fatal(err)
	}
}

// The points: everything up to here was done.
const (
	written    = iota // the rules are in the maps, and nothing refers to them
	halfAgents        // the next generation's slot of one agent refers to them
	allAgents
	switched // the next generation is in force, the rules of the old one are still in the maps
)

// use is how many numbers and entries are taken, and how many entries there are.
func (k *kernel) use(t *testing.T) map[string]uint64 {
	t.Helper()
	uses, err := k.Maps()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]uint64{}
	for _, u := range uses {
		if m[u.Name] = u.Used; u.Name == enforcerMapHomes {
			m[u.Name] -= k.mounted // the machine's mounts may have changed since
		}
	}
	for _, name := range []string{enforcerMapEdges, enforcerMapAddresses, enforcerMapPorts} {
		entries := uint64(0)
		key, value := make([]byte, k.maps[name].KeySize()), make([]byte, k.maps[name].ValueSize())
		it := k.maps[name].Iterate()
		for it.Next(&key, &value) {
			entries++
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		m[name+" found"] = entries
		if entries != m[name] {
			t.Errorf("%d %s are there, %d are accounted for", entries, name, m[name])
		}
	}
	return m
}

// Whatever a daemon is killed over, the set in force is one or the other, whole,
// and nothing of it stays for ever.
func TestInterruptedApply(t *testing.T) {
	k := basic(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/old/f", root+"/new/f")
	set := func(name, ports string) rules {
		return rules{
			files:   []string{path("read", root+"/"+name), deny("read", root+"/**/no*"), path("read", root+"/a*c/"+name)},
			network: []string{"{allow: connect, ip: 127.0.0.1, ports: [" + ports + "]}", "{allow: connect, ip: '::1', ports: [" + ports + "]}"},
		}
	}
	before, after := set("old", "1-80"), set("new", "81-200")
	s := k.start(t, before)
	k.session(t, "spiffe://local/agent/another")
	judged := func(when string, old bool) {
		t.Helper()
		want := map[bool]syscall.Errno{true: unix.ECONNREFUSED, false: unix.EACCES}
		s.want(want[old], "connect", s.socketOf("stream", ""), "127.0.0.1:80")
		s.want(want[!old], "connect", s.socketOf("stream", ""), "127.0.0.1:81")
		if k.Full() {
			allowed, denied := root+"/new/f", root+"/old/f"
			if old {
				allowed, denied = denied, allowed
			}
			s.allowed("open", allowed, "r")
			s.denied("open", denied, "r")
		}
		if t.Failed() {
			t.Fatal(when)
		}
	}
	judged("at first", true)
	want := k.use(t)
	for name, point := range map[string]int{"written": written, "half": halfAgents, "agents": allAgents, "switched": switched} {
		for range 3 {
			k.interrupt(t, compile(t, after.yaml())[0], point)
			judged(name, point != switched)
			_, agents := reload(t, k, func() { judged(name+", with nobody there", point != switched) })
			k.RestoreAgents(agents, nil)
			judged(name+", adopted", point != switched)
			if got := k.use(t); got[enforcerMapEdges] != want[enforcerMapEdges] || got[enforcerMapPorts] == 0 {
				t.Errorf("%s: adopted, %v are in use, and were %v", name, got, want)
			}
			k.apply(t, after)
			judged(name+", applied after", false)
			k.apply(t, before)
			judged(name+", applied before", true)
			if got := k.use(t); !maps.Equal(got, want) {
				t.Errorf("%s: %v are in use, and were %v", name, got, want)
			}
		}
	}
}

// A daemon that comes back again and again, and puts the same rules in force each
// time, needs no more room each time.
func TestReturningTakesNoRoom(t *testing.T) {
	k := basic(t)
	r := rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"}, files: []string{path("read", "/a/b*/c")}}
	s := k.start(t, r)
	var highest []uint32
	for range 6 {
		_, agents := reload(t, k, func() {})
		k.RestoreAgents(agents, nil)
		k.apply(t, r)
		s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
		free := k.rules.states.free
		highest = append(highest, free[len(free)-1].from)
	}
	if highest[5] > highest[1] {
		t.Errorf("the states in use reach up to %v", highest)
	}
}

// A file system that was unmounted while no daemon was there has no home.
func TestInheritedHomes(t *testing.T) {
	k := basic(t)
	homes := maps.Clone(k.homes)
	homes[4095<<20] = []string{"mnt", "gone"}
	if err := k.SetHomes(homes); err != nil {
		t.Fatal(err)
	}
	_, agents := reload(t, k, func() {})
	k.RestoreAgents(agents, nil)
	delete(homes, 4095<<20)
	if err := k.SetHomes(homes); err != nil {
		t.Fatal(err)
	}
	var home enforcerHome
	if err := k.maps[enforcerMapHomes].Lookup(uint32(4095<<20), &home); err == nil || ignoreMissing(err) != nil {
		t.Errorf("it is still known: %v", err)
	}
}
