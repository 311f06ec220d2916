// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// entries are the entries of one session's grants.
type entries struct {
	paths map[enforcerGrantPathKey]enforcerGrantsAt
	nets  map[enforcerGrantNetKey]enforcerGrantsAt
}

// compose says from all of a session's grants at once what its entries are; ok is
// false where there are too many for a place.
func compose(e *Enforcer, issued map[uint32]Grant) (want entries, ok bool) {
	want = entries{map[enforcerGrantPathKey]enforcerGrantsAt{}, map[enforcerGrantNetKey]enforcerGrantsAt{}}
	for number, g := range issued {
		for _, f := range g.Files {
			key := e.grantPathKey(g.Session, f.Path)
			at := want.paths[key]
			if addGrant(&at, number, f.Access) != nil {
				return want, false
			}
			want.paths[key] = at
		}
		for _, n := range g.Network {
			for _, key := range grantNetKeys(g.Session, n) {
				want.nets[key] = enforcerGrantsAt{}
			}
		}
	}
	for key := range want.nets {
		at := enforcerGrantsAt{}
		for number, g := range issued {
			if coversKey(&g, &key) && addGrant(&at, number, 0) != nil {
				return want, false
			}
		}
		want.nets[key] = at
	}
	return want, true
}

// coversKey tells whether a grant is for every address of a key.
func coversKey(g *Grant, key *enforcerGrantNetKey) bool {
	return slices.ContainsFunc(g.Network, func(n GrantNetwork) bool {
		address, bits := netip.AddrFrom16(key.Address), int(key.Prefixlen)-netKeyBits
		if key.Family == 4 {
			address, bits = address.Unmap(), bits-96
		}
		port := len(n.Ports) == 0 && key.Port == 0 || slices.ContainsFunc(n.Ports, func(p uint16) bool { return bigEndian(p) == key.Port })
		return port && n.Protocol == key.Protocol && n.Prefix.Bits() <= bits && n.Prefix.Contains(address)
	})
}

// randomGrant draws one of few addresses and paths, which lie within one another.
func randomGrant(r *rand.Rand, s Session, files bool) Grant {
	g := Grant{Session: s.ID, Cgroup: s.Cgroup, Deadline: after(time.Hour)}
	for range 1 + r.IntN(3) {
		n := GrantNetwork{Protocol: []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[r.IntN(2)]}
		if r.IntN(3) == 0 {
			n.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(r.IntN(8))}), []int{0, 8, 126, 127, 128}[r.IntN(5)])
		} else {
			n.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), 0, byte(r.IntN(8))}), []int{0, 8, 16, 29, 30, 31, 32}[r.IntN(7)])
		}
		for range r.IntN(3) {
			n.Ports = append(n.Ports, uint16(1+r.IntN(3)))
		}
		slices.Sort(n.Ports)
		n.Ports = slices.Compact(n.Ports)
		g.Network = append(g.Network, n)
	}
	for range r.IntN(3) {
		if files {
			g.Files = append(g.Files, GrantFile{Path: fmt.Sprint("/d/", r.IntN(10)), Access: policy.Access(1 + r.IntN(31))})
		}
	}
	return g
}

// What is changed for one grant is what all of them come to, in any order of
// coming and going.
func TestPlacesAreThoseOfAllGrants(t *testing.T) {
	e := &Enforcer{key: hashKey{1, 2}, cacheKey: [2]uint64{3, 5}}
	r := rand.New(rand.NewPCG(1, 2))
	p, issued, refused := newPlaces(), map[uint32]Grant{}, 0
	for step := range 1000 {
		c := p.change()
		number := uint32(1 + r.IntN(90))
		if g, there := issued[number]; there {
			c.remove(e, number, &g)
			delete(issued, number)
			c.done()
		} else {
			g := randomGrant(r, Session{ID: 7 << 32}, true)
			issued[number] = g
			err := c.add(e, number, &g)
			if _, ok := compose(e, issued); ok != (err == nil) {
				t.Fatalf("step %d: %v, but the places have room: %v", step, err, ok)
			}
			if err != nil {
				delete(issued, number)
				refused++
			} else {
				c.done()
			}
		}
		want, _ := compose(e, issued)
		if got := entriesOf(p.nets); !maps.Equal(got, want.nets) || !maps.Equal(p.paths, want.paths) {
			t.Fatalf("step %d: %d addresses, %d paths; want %d, %d", step, len(got), len(p.paths), len(want.nets), len(want.paths))
		}
	}
	if refused < 20 {
		t.Errorf("%d were refused: not much was tried", refused)
	}
	for number, g := range issued {
		c := p.change()
		c.remove(e, number, &g)
		c.done()
	}
	if len(p.paths)+len(p.nets)+len(p.groups) != 0 {
		t.Errorf("without grants there are places: %+v", p)
	}
}

// netEntries reads the entries of a session's addresses.
func (k *kernel) netEntries(t *testing.T, session uint64) map[enforcerGrantNetKey]enforcerGrantsAt {
	t.Helper()
	found := map[enforcerGrantNetKey]enforcerGrantsAt{}
	var key enforcerGrantNetKey
	var at enforcerGrantsAt
	it := k.maps[enforcerMapGrantNets].Iterate()
	for it.Next(&key, &at) {
		if uint64(key.Session[1])<<32|uint64(key.Session[0]) == session {
			found[key] = at
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// The kernel's table is what all grants come to, after any of them came or went,
// was refused for want of a place, or was issued by an earlier life of the daemon.
func TestGrantTables(t *testing.T) {
	k := basic(t)
	s := Session{ID: 1<<32 + 1, Cgroup: 1<<40 + 1, Agent: 1}
	if err := k.AddSession(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.RemoveSession(s.Cgroup); err != nil {
			t.Error(err)
		}
	})
	r, issued, refused := rand.New(rand.NewPCG(3, 4)), map[uint32]Grant{}, 0
	check := func(when string) {
		t.Helper()
		want, _ := compose(k.Enforcer, issued)
		if got := k.netEntries(t, s.ID); !maps.Equal(got, want.nets) {
			t.Fatalf("%s: %d addresses, want %d", when, len(got), len(want.nets))
		}
		var value enforcerSession
		if err := k.maps[enforcerMapSessions].Lookup(s.Cgroup, &value); err != nil || int(value.Grants) != len(issued) {
			t.Fatalf("%s: the session has %d grants (%v), want %d", when, value.Grants, err, len(issued))
		}
	}
	for step := range 120 {
		numbers := slices.Sorted(maps.Keys(issued))
		if len(numbers) > 0 && r.IntN(8) == 0 {
			number := numbers[r.IntN(len(numbers))]
			if err := k.Forget(number); err != nil {
				t.Fatal(err)
			}
			delete(issued, number)
		} else if number, err := k.Issue(randomGrant(r, s, false)); err == nil {
			issued[number] = k.grants.issued[number]
		} else if full := (*CapacityError)(nil); errors.As(err, &full) {
			refused++
		} else {
			t.Fatal(err)
		}
		if step%20 == 0 {
			check(fmt.Sprint("step ", step))
		}
	}
	again := &Enforcer{maps: k.maps, full: k.full, pins: k.pins, cgroup: k.cgroup}
	if err := again.start(); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(issued, func(n uint32, _ Grant) bool { return n%3 == 0 })
	if err := again.RestoreGrants(issued); err != nil {
		t.Fatal(err)
	}
	check("restored")
	for number := range issued {
		if err := again.Forget(number); err != nil {
			t.Error(err)
		}
	}
	k.grants.init(k.maps)
	if clear(issued); refused == 0 {
		t.Error("no grant was refused: not much was tried")
	}
	check("at the end")
}

// A grant that the table has no room for leaves it as it was, and its own places
// to others.
func TestGrantTableFull(t *testing.T) {
	kerneltest.RequireRoot(t)
	spec, err := loadEnforcer()
	if err != nil {
		t.Fatal(err)
	}
	k := &kernel{Enforcer: &Enforcer{maps: map[string]*ebpf.Map{}}}
	for _, name := range []string{enforcerMapGrants, enforcerMapGrantPaths, enforcerMapGrantNets} {
		spec.Maps[name].MaxEntries = 8
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatal(err)
		}
		k.maps[name] = m
	}
	defer k.Close()
	k.grants.init(k.maps)
	of := func(prefix string, ports ...uint16) *Grant {
		return &Grant{Session: 5, Network: k.granted(t, prefix, unix.IPPROTO_TCP, ports...)}
	}
	if err := k.placeGrant(1, of("10.0.0.0/8", 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	before := k.netEntries(t, 5)
	var full *CapacityError
	if err := k.placeGrant(2, of("10.0.0.1/32", 1, 2, 3, 4, 5)); !errors.As(err, &full) || full.Key != "grantedAddresses" {
		t.Errorf("one place too many: %v", err)
	}
	if got := k.netEntries(t, 5); !maps.Equal(got, before) || len(k.grants.issued) != 1 || k.grants.of(5).grants != 1 {
		t.Errorf("afterwards there are %d places, want %d; %+v", len(got), len(before), k.grants.issued)
	}
	if err := k.placeGrant(2, of("10.0.0.1/32", 1, 2, 3, 5)); err != nil {
		t.Errorf("as many as there is room for: %v", err)
	}
}
