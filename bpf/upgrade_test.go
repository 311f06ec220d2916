// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// trial is one thing that a session does over and over.
type trial struct {
	op    string
	args  []any
	errno syscall.Errno
	told  string // verdict of the event; "": it is counted only
	grant uint32 // it takes a use of this one; 0: of none
}

// hammer does the trials in turn until it is stopped, and returns how often each
// was done.
func (s *confined) hammer(trials []trial) (stop func() int) {
	var end atomic.Bool
	rounds := make(chan int)
	go func() {
		n := 0
		for ; !end.Load() || n == 0; n++ {
			for _, x := range trials {
				s.want(x.errno, x.op, x.args...)
			}
			time.Sleep(time.Duration(kerneltest.Often(5, 1, 5)) * time.Millisecond)
		}
		rounds <- n
	}()
	return func() int {
		end.Store(true)
		return <-rounds
	}
}

// Another build takes over from the one in force while a session tries what it
// may and what it may not: no answer is wrong, and each is told once.
func TestUpgrade(t *testing.T) {
	k := basic(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/f", root+"/granted")
	s := k.start(t, rules{
		files:   []string{path("read", root+"/w")},
		network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"},
	})
	trials := []trial{
		{op: "connect", args: []any{s.socketOf("stream", ""), "127.0.0.1:81"}, errno: syscall.EACCES, told: "deny"},
		{op: "connect", args: []any{s.socketOf("stream", ""), "127.0.0.1:80"}, errno: syscall.ECONNREFUSED, told: "allow"},
		{op: "connect", args: []any{s.socketOf("stream", ""), "127.0.0.1:82"}, errno: syscall.ECONNREFUSED, told: "allow",
			grant: s.issue(Grant{Deadline: after(time.Hour), Uses: 1 << 30, Network: []GrantNetwork{
				{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Protocol: unix.IPPROTO_TCP, Ports: []uint16{82}},
			}})},
	}
	if k.Full() {
		trials = append(trials,
			trial{op: "open", args: []any{root + "/w/f", "r"}},
			trial{op: "open", args: []any{root + "/f", "r"}, errno: syscall.EACCES, told: "deny"},
			trial{op: "open", args: []any{root + "/granted", "r"}, told: "allow",
				grant: s.issue(Grant{Deadline: after(time.Hour), Uses: 1 << 30, Files: files(policy.Read, root+"/granted")})})
	}
	for i := range kerneltest.Often(10, 4, 1) {
		k.options.Version = []string{"next", ""}[i%2]
		k.upgrade(t, s, trials)
	}
}

// upgrade replaces the programs by those of options.Version while the session tries things.
func (k *kernel) upgrade(t *testing.T, s *confined, trials []trial) {
	t.Helper()
	k.settled(t)
	told := map[string]int{}
	tell := func(ev *Event) { told[ev.Operation+" "+ev.Verdict] += int(ev.Count) }
	before, agents, left := k.Enforcer, k.Agents(), map[uint32]int64{}
	for _, x := range trials {
		if x.grant != 0 {
			left[x.grant] = k.uses(t, x.grant)
		}
	}
	stop, mute := s.hammer(trials), k.listen(t, tell)
	next, err := Load(k.options)
	mute()
	if err != nil {
		stop()
		t.Fatal(err)
	}
	if err := errors.Join(k.reader.Close(), before.Close()); err != nil {
		t.Error(err)
	}
	k.Enforcer = next
	if k.reader, err = next.NewReader(); err != nil {
		t.Fatal(err)
	}
	mute = k.listen(t, tell)
	next.RestoreAgents(agents, nil)
	if err := next.RestoreGrants(before.grants.issued); err != nil {
		t.Error(err)
	}
	if next.Replaced() != before.pins || next.pins == before.pins || !next.Adopted() {
		t.Errorf("%s replaced %q, not %s", next.pins, next.Replaced(), before.pins)
	}
	began := time.Now()
	if err := next.Retire(); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	rounds := stop()
	mute()
	for _, ev := range k.events(t) {
		tell(ev)
	}
	t.Logf("%d rounds; removing the programs before took %v", rounds, took)
	entries, err := os.ReadDir(k.options.PinDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("pins that are left: %v, %v", entries, err)
	}
	for _, ev := range k.settled(t) {
		tell(ev)
	}
	checkTold(t, trials, rounds, told)
	for grant, n := range left {
		if taken := int(n - k.uses(t, grant)); taken != rounds && taken != rounds-1 {
			t.Errorf("%d uses of a grant are taken, not %d", taken, rounds)
		}
	}
}

// uses returns how many uses a grant has left.
func (k *kernel) uses(t *testing.T, grant uint32) int64 {
	t.Helper()
	state, err := k.GrantState(grant)
	if err != nil {
		t.Fatal(err)
	}
	return state.Uses
}

// listen takes events off the ring until it is told to stop.
func (k *kernel) listen(t *testing.T, tell func(*Event)) (mute func()) {
	reader, end, done := k.reader, atomic.Bool{}, make(chan struct{})
	go func() {
		defer close(done)
		for !end.Load() {
			ev, err := reader.Read(time.Now().Add(50 * time.Millisecond))
			switch {
			case err == nil:
				tell(ev)
				if err := reader.Commit(ev.Position); err != nil {
					t.Error(err)
				}
			case !errors.Is(err, os.ErrDeadlineExceeded):
				t.Error(err)
				return
			}
		}
	}()
	return func() { end.Store(true); <-done }
}

// checkTold compares what was told with what was done: each denial once, and each
// connection, but for the one call that may be under way while the turn passes.
func checkTold(t *testing.T, trials []trial, rounds int, told map[string]int) {
	t.Helper()
	want := map[string]int{}
	for _, x := range trials {
		if x.told != "" {
			want[x.op+" "+x.told] += rounds
		}
	}
	for what, n := range want {
		off := told[what] - n
		if strings.HasSuffix(what, "deny") && off != 0 || off < -1 || off > 1 {
			t.Errorf("%s: told %d times, not %d", what, told[what], n)
		}
	}
}

// What an interrupted upgrade left is removed, and what was in force goes on.
func TestUpgradeInterrupted(t *testing.T) {
	if kerneltest.Often(1, 1, 0) == 0 {
		t.Skip(kerneltest.SkipReason + "time: loading anew takes long in a guest without KVM")
	}
	k := basic(t)
	s := k.start(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"}})
	check := func(when string) {
		t.Helper()
		s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
		s.want(111, "connect", s.socketOf("stream", ""), "127.0.0.1:80")
		if t.Failed() {
			t.Fatal(when)
		}
	}
	pins := k.pins
	again := func(when string) {
		t.Helper()
		check(when)
		_, agents := reload(t, k, func() {})
		k.RestoreAgents(agents, nil)
		check("after " + when)
		if !k.Retiring() {
			t.Fatalf("after %s nothing is to be removed", when)
		}
		if err := k.Retire(); err != nil {
			t.Fatal(err)
		}
		check("retired after " + when)
		entries, err := os.ReadDir(k.options.PinDir)
		if err != nil || len(entries) != 1 || k.pins != pins {
			t.Fatalf("after %s: pins %v, %v; %s is in force", when, entries, err, k.pins)
		}
	}
	// Attached and in place, but its turn has not come: the links are shared.
	before := &build{dir: k.pins}
	o := k.options
	o.Version = "next"
	beside(t, o, before)
	again("being attached beside")
	// Not in place yet.
	making := beside(t, o, before)
	if err := os.Rename(making, filepath.Join(o.PinDir, newPrefix+filepath.Base(making))); err != nil {
		t.Fatal(err)
	}
	again("being made")
	// The turn has come, and no link was updated: the other build goes on.
	next := beside(t, o, before)
	g, err := k.globals()
	if err != nil {
		t.Fatal(err)
	}
	old := g.Turn
	if _, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(next), Digest("next")), "-%x", &g.Turn); err != nil || g.Turn == old {
		t.Fatalf("%s names no turn, or the one before: %v", next, err)
	}
	if err := k.setGlobals(g); err != nil {
		t.Fatal(err)
	}
	k.options.Version, pins = "next", next
	again("the turn has come")
	k.options.Version = ""
	_, agents := reload(t, k, func() { check("back") })
	k.RestoreAgents(agents, nil)
	check("back")
	if err := k.Retire(); err != nil {
		t.Fatal(err)
	}
	check("retired")
	// Somebody removes a pin of the programs in force.
	if err := os.Remove(filepath.Join(k.pins, "links", enforcerProgConnect4)); err != nil {
		t.Fatal(err)
	}
	_, agents = reload(t, k, func() {})
	k.RestoreAgents(agents, nil)
	check("after a pin was removed")
	if err := k.Retire(); err != nil {
		t.Fatal(err)
	}
}

// beside attaches and pins a build's programs over the maps of another, and stops there.
func beside(t *testing.T, o Options, before *build) (dir string) {
	t.Helper()
	spec, chosen, f := fitted(t, o, before)
	defer f.close()
	turn, err := configure(spec, f.fixed)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range f.entries {
		spec.Maps[name].MaxEntries = n
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: f.maps})
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	dir = pinsOf(o, turn)
	if err := pinAll(coll, chosen, o, dir, before); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fitted(t *testing.T, o Options, before *build) (*ebpf.CollectionSpec, programs, *fit) {
	t.Helper()
	spec, err := loadEnforcer()
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := choose(spec, o.Full)
	if err != nil {
		t.Fatal(err)
	}
	f, err := before.fit(spec, o)
	if err != nil {
		t.Fatal(err)
	}
	return spec, chosen, f
}

// A build that can't run over the maps there are says why, and touches nothing.
func TestUpgradeRefused(t *testing.T) {
	k := basic(t)
	s := k.start(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"}})
	before := &build{dir: k.pins, sessions: 1}
	for _, x := range []struct {
		name, says string
		change     func(*ebpf.CollectionSpec, *Options)
	}{
		{"value", "the value's size of its map states is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[enforcerMapStates].ValueSize += 8 }},
		{"key", "the key's size of its map edges is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[enforcerMapEdges].KeySize += 8 }},
		{"type", "the type of its map sessions is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[enforcerMapSessions].Type = ebpf.LRUHash }},
		{"flags", "the set of flags of its map edges is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[enforcerMapEdges].Flags = 0 }},
		{"capacity", "the capacity of its map homes is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[enforcerMapHomes].MaxEntries++ }},
		{"globals", "the value's size of its map .bss is", func(c *ebpf.CollectionSpec, _ *Options) { c.Maps[bssMap].ValueSize += 8 }},
		{"tier", "its tier is", func(_ *ebpf.CollectionSpec, o *Options) { o.Full = !o.Full }},
		{"level", "levels deep", func(_ *ebpf.CollectionSpec, o *Options) { o.Level++ }},
		{"cgroup", "are not below", func(_ *ebpf.CollectionSpec, o *Options) { o.Cgroup = filepath.Dir(o.Cgroup) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			o := k.options
			o.Version = "next"
			spec, err := loadEnforcer()
			if err != nil {
				t.Fatal(err)
			}
			chosen, err := choose(spec, o.Full)
			if err != nil {
				t.Fatal(err)
			}
			x.change(spec, &o)
			f, err := before.fit(spec, o)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			var other *OtherBuildError
			_, err = succeed(o, spec, chosen, before, f, nil)
			if !errors.As(err, &other) || other.Sessions != 1 || len(other.Differs) != 1 ||
				!strings.Contains(err.Error(), x.says) || !strings.Contains(err.Error(), "bailiffd --remove") {
				t.Fatalf("it says %v", err)
			}
			if _, err := os.Stat(k.pins); err != nil {
				t.Error(err)
			}
		})
	}
	s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
	o, unready := k.options, errors.New("not ready")
	o.Version, o.Ready = "next", func() error { return unready }
	if k.options.Version == "next" {
		o.Version = ""
	}
	if _, err := Load(o); !errors.Is(err, unready) {
		t.Errorf("load: %v, want what Ready says", err)
	}
	entries, err := os.ReadDir(o.PinDir)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(k.pins) {
		t.Errorf("pins: %v, %v", entries, err)
	}
}

// Tables keep their capacity while there are sessions.
func TestUpgradeCapacity(t *testing.T) {
	k := basic(t)
	sizes := k.options.Sizes
	defer func() { k.options.Sizes = sizes }()
	k.options.Sizes.GlobNodes = 512
	s := k.start(t, rules{network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"}})
	had := k.maps[enforcerMapGlobs].MaxEntries()
	_, agents := reload(t, k, func() {})
	k.RestoreAgents(agents, nil)
	notes := strings.Join(k.Notes(), "\n")
	if now := k.maps[enforcerMapGlobs].MaxEntries(); now != had || !strings.Contains(notes, "globs keeps its capacity, ") {
		t.Errorf("with a session there is room for %d, was for %d; it says %q", now, had, notes)
	}
	s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
}

// Tables get the configured capacity once nobody needs what is in them.
func TestUpgradeResize(t *testing.T) {
	if kerneltest.Often(1, 1, 0) == 0 {
		t.Skip(kerneltest.SkipReason + "time: loading anew takes long in a guest without KVM")
	}
	o := basic(t).options
	o.PinDir = filepath.Join(filepath.Dir(o.PinDir), "resized")
	for _, o.Sizes.GlobNodes = range []uint32{512, 1024} {
		e, err := Load(o)
		if err != nil {
			t.Fatal(err)
		}
		if n := e.maps[enforcerMapGlobs].MaxEntries(); n != o.Sizes.GlobNodes || e.Adopted() || len(e.Notes()) > 0 {
			t.Errorf("there is room for %d, not %d; adopted: %v; %q", n, o.Sizes.GlobNodes, e.Adopted(), e.Notes())
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := Remove(o.PinDir); err != nil {
		t.Error(err)
	}
}
