// SPDX-License-Identifier: Apache-2.0

package bpf

import "errors"

// watched is what the programs look at that are attached for grants.
type watched struct{ files, sockets, mappings bool }

// hold notes what a session can have opened under a grant.
func (g *grants) hold(x *Grant) {
	h := g.held[x.Cgroup]
	g.held[x.Cgroup] = held{h.files || len(x.Files) > 0, h.sockets || len(x.Network) > 0}
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
	var w watched
	for _, h := range e.grants.held {
		w.files, w.sockets = w.files || h.files, w.sockets || h.sockets
	}
	w.mappings = w.files && e.grants.kills > 0
	if e.grants.watched != nil && *e.grants.watched == w {
		return nil
	}
	e.grants.watched = nil // until it is so
	g, err := e.globals()
	if err != nil {
		return err
	}
	if g.FileGrants = 0; w.files {
		g.FileGrants = 1
	}
	if err := e.setGlobals(g); err != nil {
		return err
	}
	err = e.demand(enforcerProgIngress, w.sockets)
	if e.full {
		err = errors.Join(err, e.demand(enforcerProgFilePermission, w.files), e.demand(enforcerProgTick, w.mappings))
	}
	if err == nil {
		e.grants.watched = &w
	}
	return err
}
