// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// RestoreGrants tells what an earlier life of the daemon issued, by number, and
// clears the tables of everything else. It comes before the first Issue, and
// after the sessions are known.
func (e *Enforcer) RestoreGrants(issued map[uint32]Grant) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := &e.grants
	err := e.eachGrant(func(number uint32, v *enforcerGrant) error {
		g.serial = max(g.serial, v.Serial)
		if _, known := issued[number]; known || *v == (enforcerGrant{}) {
			return nil
		}
		if err := e.maps[enforcerMapGrants].Update(number, &enforcerGrant{}, ebpf.UpdateExist); err != nil {
			return fmt.Errorf("forget grant %d: %w", number, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.inheritHeld(); err != nil {
		return err
	}
	wanted, err := e.wantedPlaces(issued)
	if err := errors.Join(err, e.replacePlaces(wanted)); err != nil {
		return err
	}
	for number, x := range issued {
		g.put(number, x)
	}
	errs := []error{e.watchGrants()}
	for _, x := range issued {
		errs = append(errs, e.countGrants(x.Session, x.Cgroup))
	}
	return errors.Join(errs...)
}

// wantedPlaces makes what is known of places say what was issued.
func (e *Enforcer) wantedPlaces(issued map[uint32]Grant) (*change, error) {
	all := newPlaces().change()
	var errs []error
	for _, number := range slices.Sorted(maps.Keys(issued)) {
		x := issued[number]
		p := e.grants.of(x.Session)
		c := p.change()
		if err := c.add(e, number, &x); err != nil {
			errs = append(errs, fmt.Errorf("restore grant %d: %w", number, err))
			continue
		}
		c.done()
		p.grants++
		for key := range c.paths {
			all.paths[key] = p.paths[key]
		}
		for key := range c.nets {
			all.nets[key] = p.nets[key]
		}
	}
	return all, errors.Join(errs...)
}

// replacePlaces writes the places that are wanted, and removes what an earlier life
// of the daemon wrote besides.
func (e *Enforcer) replacePlaces(wanted *change) error {
	var at enforcerGrantsAt
	var path enforcerGrantPathKey
	it := e.maps[enforcerMapGrantPaths].Iterate()
	for it.Next(&path, &at) {
		wanted.paths[path] = wanted.path(path)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the places of grants: %w", err)
	}
	var net enforcerGrantNetKey
	it = e.maps[enforcerMapGrantNets].Iterate()
	for it.Next(&net, &at) {
		wanted.nets[net] = wanted.net(net)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the places of grants: %w", err)
	}
	return e.writePlaces(wanted)
}

// eachGrant visits every place in the table of grants, taken or not.
func (e *Enforcer) eachGrant(visit func(number uint32, v *enforcerGrant) error) error {
	var cursor ebpf.MapBatchCursor
	numbers, values := make([]uint32, 4096), make([]enforcerGrant, 4096)
	for {
		n, err := e.maps[enforcerMapGrants].BatchLookup(&cursor, numbers, values, nil)
		for i := range n {
			if err := visit(numbers[i], &values[i]); err != nil {
				return err
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the grants: %w", err)
		}
	}
}
