// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// placeGrants makes the tables of places say what has been issued to a session,
// and attaches what watches over that. New entries come first, so that a live
// grant is found at any time.
func (e *Enforcer) placeGrants(session, cgroup uint64) error {
	wanted, n, err := e.composeGrants(session)
	if err != nil {
		return err
	}
	old := e.grants.placed[session]
	if err := errors.Join(
		replaceEntries(e.maps[enforcerMapGrantPaths], "grantedPaths", old.paths, wanted.paths),
		replaceEntries(e.maps[enforcerMapGrantNets], "grantedAddresses", old.nets, wanted.nets),
	); err != nil {
		return err
	}
	if e.grants.placed[session] = wanted; n == 0 {
		delete(e.grants.placed, session)
	}
	e.grants.hold()
	if err := e.watchGrants(); err != nil {
		return err
	}
	var s enforcerSession
	err = e.maps[enforcerMapSessions].Lookup(cgroup, &s)
	if errors.Is(err, ebpf.ErrKeyNotExist) && n == 0 {
		return nil // it has ended
	}
	if err != nil {
		return fmt.Errorf("find the session of a grant: %w", err)
	}
	s.Grants = uint32(n)
	if err := e.maps[enforcerMapSessions].Update(cgroup, &s, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("count a session's grants: %w", err)
	}
	return nil
}

// hold notes what sessions can have opened.
func (g *grants) hold() {
	for _, x := range g.issued {
		h := g.held[x.Cgroup]
		g.held[x.Cgroup] = held{h.files || len(x.Files) > 0, h.sockets || len(x.Network) > 0}
	}
}

// release notes that a session has ended.
func (e *Enforcer) release(cgroup uint64) error {
	if _, ok := e.grants.held[cgroup]; !ok {
		return nil
	}
	delete(e.grants.held, cgroup)
	return e.watchGrants()
}

// inheritHeld learns what sessions may hold open under grants of an earlier life
// of the daemon: it is not known of which, so of any that is there, what is
// looked at is.
func (e *Enforcer) inheritHeld() error {
	var h held
	for program, is := range map[string]*bool{enforcerProgFilePermission: &h.files, enforcerProgIngress: &h.sockets} {
		pins, err := demandPins(e.pins, program)
		if err != nil {
			return err
		}
		*is = len(pins) > 0
	}
	sessions, err := e.Sessions()
	if err != nil || h == (held{}) {
		return err
	}
	for _, s := range sessions {
		e.grants.held[s.Cgroup] = h
	}
	return nil
}

// watchGrants attaches the programs that grants need, and detaches them when
// nothing is left that they could have opened.
func (e *Enforcer) watchGrants() error {
	var files, nets, kills bool
	for _, h := range e.grants.held {
		files, nets = files || h.files, nets || h.sockets
	}
	for _, g := range e.grants.issued {
		kills = kills || g.Kill
	}
	g, err := e.globals()
	if err != nil {
		return err
	}
	if g.FileGrants = 0; files {
		g.FileGrants = 1
	}
	if err := e.setGlobals(g); err != nil {
		return err
	}
	err = e.demand(enforcerProgIngress, nets)
	if e.full {
		err = errors.Join(err, e.demand(enforcerProgFilePermission, files), e.demand(enforcerProgTick, kills && files))
	}
	return err
}

// composeGrants returns the entries of everything that was issued to a session,
// and how many grants that is.
func (e *Enforcer) composeGrants(session uint64) (places, int, error) {
	p := places{map[enforcerGrantPathKey]enforcerGrantsAt{}, map[enforcerGrantNetKey]enforcerGrantsAt{}}
	n := 0
	for _, number := range slices.Sorted(maps.Keys(e.grants.issued)) {
		g := e.grants.issued[number]
		if g.Session != session {
			continue
		}
		n++
		for _, f := range g.Files {
			key := e.grantPathKey(session, f.Path)
			at := p.paths[key]
			if err := addGrant(&at, number, f.Access); err != nil {
				return p, n, fmt.Errorf("%s: %w", f.Path, err)
			}
			p.paths[key] = at
		}
		for _, network := range g.Network {
			for _, key := range grantNetKeys(session, network) {
				p.nets[key] = enforcerGrantsAt{}
			}
		}
	}
	return p, n, e.fillNets(session, p.nets)
}

// fillNets notes at each prefix the grants that cover it: the programs look at
// the longest one only.
func (e *Enforcer) fillNets(session uint64, nets map[enforcerGrantNetKey]enforcerGrantsAt) error {
	for _, number := range slices.Sorted(maps.Keys(e.grants.issued)) {
		g := e.grants.issued[number]
		if g.Session != session {
			continue
		}
		for _, network := range g.Network {
			for _, wide := range grantNetKeys(session, network) {
				for key, at := range nets {
					if !coversNet(&wide, &key) {
						continue
					}
					if err := addGrant(&at, number, 0); err != nil {
						return fmt.Errorf("%v: %w", network.Prefix, err)
					}
					nets[key] = at
				}
			}
		}
	}
	return nil
}

// addGrant adds a number to those of a place; two of one grant give both their rights.
func addGrant(at *enforcerGrantsAt, number uint32, access policy.Access) error {
	for i, taken := range at.Number {
		if taken == 0 || taken == number {
			at.Number[i] = number
			at.Access[i] |= uint8(access)
			return nil
		}
	}
	return &CapacityError{What: "grants of one session for one place", Need: 1, Max: uint32(len(at.Number))}
}

// grantPathKey chains the hashes of a path's components, from the root down; see
// descend in grant.bpf.h.
func (e *Enforcer) grantPathKey(session uint64, path string) enforcerGrantPathKey {
	h := e.cacheKey[0]
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		h = (h ^ e.key.sum(name)) * e.cacheKey[1]
		h ^= h >> 32
	}
	return enforcerGrantPathKey{Session: session, Hash: h}
}

// netKeyBits are the bits of a grant_net_key before the address.
const netKeyBits = 64 + 8 + 8 + 16

// grantNetKeys returns a key for each port.
func grantNetKeys(session uint64, n GrantNetwork) []enforcerGrantNetKey {
	ports := n.Ports
	if len(ports) == 0 {
		ports = []uint16{0}
	}
	bits, address, family := n.Prefix.Bits(), n.Prefix.Masked().Addr(), uint8(6)
	if address.Is4() {
		bits, family = bits+96, 4
	}
	var keys []enforcerGrantNetKey
	for _, port := range ports {
		keys = append(keys, enforcerGrantNetKey{
			Prefixlen: uint32(netKeyBits + bits), Session: [2]uint32{uint32(session), uint32(session >> 32)},
			Family: family, Protocol: n.Protocol, Port: bigEndian(port), Address: address.As16(),
		})
	}
	return keys
}

// coversNet tells whether every address of key is one of wide, at the same port.
func coversNet(wide, key *enforcerGrantNetKey) bool {
	bits := int(wide.Prefixlen) - netKeyBits
	return wide.Family == key.Family && wide.Protocol == key.Protocol && wide.Port == key.Port && wide.Prefixlen <= key.Prefixlen &&
		netip.PrefixFrom(netip.AddrFrom16(wide.Address), bits).Contains(netip.AddrFrom16(key.Address))
}

// replaceEntries turns the old entries of a map into the wanted ones.
func replaceEntries[K comparable](m *ebpf.Map, key string, old, wanted map[K]enforcerGrantsAt) error {
	var errs []error
	for k, v := range wanted {
		if was, ok := old[k]; ok && was == v {
			continue
		}
		err := m.Update(&k, &v, ebpf.UpdateAny)
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
			err = &CapacityError{What: "places of grants", Key: key, Need: 1, Max: m.MaxEntries()}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("write the places of grants: %w", err))
		}
	}
	for k := range old {
		if _, still := wanted[k]; !still {
			if err := ignoreMissing(m.Delete(&k)); err != nil {
				errs = append(errs, fmt.Errorf("write the places of grants: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// inheritPlaces reads what an earlier life of the daemon wrote.
func (e *Enforcer) inheritPlaces() error {
	placed := map[uint64]places{}
	of := func(session uint64) places {
		if _, ok := placed[session]; !ok {
			placed[session] = places{map[enforcerGrantPathKey]enforcerGrantsAt{}, map[enforcerGrantNetKey]enforcerGrantsAt{}}
		}
		return placed[session]
	}
	var at enforcerGrantsAt
	var path enforcerGrantPathKey
	it := e.maps[enforcerMapGrantPaths].Iterate()
	for it.Next(&path, &at) {
		of(path.Session).paths[path] = at
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the places of grants: %w", err)
	}
	var net enforcerGrantNetKey
	it = e.maps[enforcerMapGrantNets].Iterate()
	for it.Next(&net, &at) {
		of(uint64(net.Session[1])<<32 | uint64(net.Session[0])).nets[net] = at
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the places of grants: %w", err)
	}
	e.grants.placed = placed
	return nil
}
