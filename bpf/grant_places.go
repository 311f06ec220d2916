// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// places are the entries of one session's grants.
type places struct {
	paths  map[enforcerGrantPathKey]enforcerGrantsAt
	nets   map[enforcerGrantNetKey]netPlace
	groups map[enforcerGrantNetKey]netKeys // those of nets, by netGroup
	grants int                             // whose places these are
}

// netPlace is an entry of addresses. The programs look at the longest prefix only,
// so it has the grants of every prefix that covers it.
type netPlace struct {
	at  enforcerGrantsAt
	own int // how often a grant names just these addresses; 0: there is no such entry
}

func newPlaces() *places {
	return &places{
		paths: map[enforcerGrantPathKey]enforcerGrantsAt{}, nets: map[enforcerGrantNetKey]netPlace{},
		groups: map[enforcerGrantNetKey]netKeys{},
	}
}

// change is how some places are to be; those that are to be gone are zero.
type change struct {
	of    *places
	paths map[enforcerGrantPathKey]enforcerGrantsAt
	nets  map[enforcerGrantNetKey]netPlace
}

func (p *places) change() *change {
	return &change{p, map[enforcerGrantPathKey]enforcerGrantsAt{}, map[enforcerGrantNetKey]netPlace{}}
}

func (c *change) path(key enforcerGrantPathKey) enforcerGrantsAt {
	if at, ok := c.paths[key]; ok {
		return at
	}
	return c.of.paths[key]
}

func (c *change) net(key enforcerGrantNetKey) netPlace {
	if p, ok := c.nets[key]; ok {
		return p
	}
	return c.of.nets[key]
}

// add has a grant in all its places. A *CapacityError says that there are too many
// grants for one of them.
func (c *change) add(e *Enforcer, number uint32, g *Grant) error {
	for _, f := range g.Files {
		key := e.grantPathKey(g.Session, f.Path)
		at := c.path(key)
		if err := addGrant(&at, number, f.Access); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		c.paths[key] = at
	}
	for _, network := range g.Network {
		for _, key := range grantNetKeys(g.Session, network) {
			if err := c.addNet(key, number); err != nil {
				return fmt.Errorf("%v: %w", network.Prefix, err)
			}
		}
	}
	return nil
}

// addNet has a grant at a prefix and at those within it.
func (c *change) addNet(key enforcerGrantNetKey, number uint32) error {
	p := c.net(key)
	if p.own == 0 {
		p.at = c.covering(key)
	}
	p.own++
	c.nets[key] = p
	// What is within and new is of the same grant, and has it.
	for _, k := range c.of.groups[netGroup(key)].within(key).with(key) {
		p := c.net(k)
		if err := addGrant(&p.at, number, 0); err != nil {
			return err
		}
		c.nets[k] = p
	}
	return nil
}

// covering returns the grants of the longest prefix that covers one.
func (c *change) covering(key enforcerGrantNetKey) enforcerGrantsAt {
	for shortest := shortestKey(key.Family); key.Prefixlen > shortest; {
		key = coveredBy(key, key.Prefixlen-1)
		if p := c.net(key); p.own > 0 {
			return p.at
		}
	}
	return enforcerGrantsAt{}
}

// remove has a grant in none of its places.
func (c *change) remove(e *Enforcer, number uint32, g *Grant) {
	for _, f := range g.Files {
		key := e.grantPathKey(g.Session, f.Path)
		c.paths[key] = withoutGrant(c.path(key), number)
	}
	for _, network := range g.Network {
		for _, key := range grantNetKeys(g.Session, network) {
			p := c.net(key)
			p.own--
			c.nets[key] = p
			for _, k := range c.of.groups[netGroup(key)].within(key) {
				p := c.net(k)
				p.at = withoutGrant(p.at, number)
				c.nets[k] = p
			}
		}
	}
	for key, p := range c.nets {
		if p.own == 0 {
			c.nets[key] = netPlace{}
		}
	}
}

// undo is how what is changed is now.
func (c *change) undo() *change {
	u := c.of.change()
	for key := range c.paths {
		u.paths[key] = c.of.paths[key]
	}
	for key := range c.nets {
		u.nets[key] = c.of.nets[key]
	}
	return u
}

// done notes that the tables are as they were to be.
func (c *change) done() {
	for key, at := range c.paths {
		if c.of.paths[key] = at; at == (enforcerGrantsAt{}) {
			delete(c.of.paths, key)
		}
	}
	for key, p := range c.nets {
		group := netGroup(key)
		if p.own > 0 {
			c.of.nets[key], c.of.groups[group] = p, c.of.groups[group].with(key)
			continue
		}
		delete(c.of.nets, key)
		if c.of.groups[group] = c.of.groups[group].without(key); len(c.of.groups[group]) == 0 {
			delete(c.of.groups, group)
		}
	}
}

// makeSo writes a change to the tables. On an error they are as before.
func (e *Enforcer) makeSo(c *change) error {
	if err := e.writePlaces(c); err != nil {
		return errors.Join(err, e.writePlaces(c.undo()))
	}
	c.done()
	return nil
}

// writePlaces writes what is new before what is to be gone, so that a live grant is
// found at any time.
func (e *Enforcer) writePlaces(c *change) error {
	return errors.Join(
		writeEntries(e.maps[enforcerMapGrantPaths], "grantedPaths", c.paths),
		writeEntries(e.maps[enforcerMapGrantNets], "grantedAddresses", entriesOf(c.nets)),
	)
}

func entriesOf(nets map[enforcerGrantNetKey]netPlace) map[enforcerGrantNetKey]enforcerGrantsAt {
	entries := make(map[enforcerGrantNetKey]enforcerGrantsAt, len(nets))
	for key, p := range nets {
		entries[key] = p.at
	}
	return entries
}

// addGrant adds a number to those of a place, which are sorted; two of one grant
// give both their rights.
func addGrant(at *enforcerGrantsAt, number uint32, access policy.Access) error {
	n := 0
	for n < len(at.Number) && at.Number[n] != 0 {
		n++
	}
	i, found := slices.BinarySearch(at.Number[:n], number)
	if !found {
		if n == len(at.Number) {
			return &CapacityError{What: "grants of one session for one place", Need: 1, Max: uint32(n)}
		}
		copy(at.Number[i+1:], at.Number[i:n])
		copy(at.Access[i+1:], at.Access[i:n])
		at.Number[i], at.Access[i] = number, 0
	}
	at.Access[i] |= uint8(access)
	return nil
}

// withoutGrant is a place without a number, and without a gap.
func withoutGrant(at enforcerGrantsAt, number uint32) (left enforcerGrantsAt) {
	n := 0
	for i, taken := range at.Number {
		if taken != 0 && taken != number {
			left.Number[n], left.Access[n] = taken, at.Access[i]
			n++
		}
	}
	return left
}

// writeEntries writes entries, first those that are not to be gone.
func writeEntries[K comparable](m *ebpf.Map, key string, entries map[K]enforcerGrantsAt) error {
	var errs []error
	for k, v := range entries {
		if v == (enforcerGrantsAt{}) {
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
	for k, v := range entries {
		if v != (enforcerGrantsAt{}) {
			continue
		}
		if err := ignoreMissing(m.Delete(&k)); err != nil {
			errs = append(errs, fmt.Errorf("write the places of grants: %w", err))
		}
	}
	return errors.Join(errs...)
}
