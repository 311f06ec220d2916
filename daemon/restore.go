// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"

	"bailiff.dev/bailiff/bpf"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// restoreRules puts in force what the state directory says.
func (d *Daemon) restoreRules() error {
	var stored storedSessions
	if err := d.store.read(sessionsFile, &stored); err != nil {
		return err
	}
	if d.kernel.Adopted() {
		d.kernel.RestoreAgents(stored.Agents, stored.Dropped)
	}
	var documents storedPolicies
	if err := d.store.read(policiesFile, &documents); err != nil {
		return err
	}
	if err := d.restorePolicies(documents); err != nil {
		return fmt.Errorf("restore the policies: %w", err)
	}
	return nil
}

// checkStored finds out whether this build takes the policies that another one
// has in force.
func (d *Daemon) checkStored() error {
	var stored storedPolicies
	if err := d.store.read(policiesFile, &stored); err != nil {
		return err
	}
	if c, ok := d.compile(stored); !ok {
		return fmt.Errorf("take over from another build: this one does not take the policies in force: %w: "+
			"start the other one again, and change them there", c.problems.Err())
	}
	return nil
}

// restorePolicies puts the stored policies in force again.
func (d *Daemon) restorePolicies(stored storedPolicies) error {
	generation, err := d.kernel.Generation()
	if err != nil {
		return err
	}
	c, ok := d.compile(stored)
	if !ok {
		return fmt.Errorf("this build does not take what an earlier one applied: %w", c.problems.Err())
	}
	fresh := true
	switch {
	case !d.kernel.Adopted(): // other programs, which count generations anew
		c.stored.Since, c.stored.Before = generation+1, storedSet{}
	case stored.Since <= generation && c.stored.Builtin != stored.Builtin:
		c.stored.Since, c.stored.Before = generation+1, stored.storedSet
	default:
		fresh = false
	}
	if d.kernel.Adopted() {
		d.explain(stored.Before)
		d.explain(stored.storedSet)
	}
	if fresh {
		if err := d.store.write(policiesFile, c.stored); err != nil {
			return err
		}
	}
	err = d.put(c)
	if err != nil && d.kernel.Adopted() && stored.Since > generation && stored.Before.Since <= generation {
		// The daemon was killed between writing them down and finding that they don't fit.
		d.log.Error("the policies that were being applied when the daemon was killed are not taken: those before them stay in force", "error", err)
		before := storedPolicies{storedSet: stored.Before}
		return errors.Join(d.store.write(policiesFile, before), d.restorePolicies(before))
	}
	return err
}

// explain lets a set explain the events that an earlier life of the daemon has not
// read.
func (d *Daemon) explain(s storedSet) {
	if c, ok := d.compileWith(storedPolicies{storedSet: s}, builtinDocument(s.Builtin)); ok {
		d.policies.remember(past{s.Since, bySubject(c.rulesets()), policy.Subjects(c.docs)})
	}
}

// restoreSessions takes up the sessions that run, and ends those that ended while
// no daemon was there. What a kill left of one that was being started is removed.
func (d *Daemon) restoreSessions() error {
	var stored storedSessions
	if err := d.store.read(sessionsFile, &stored); err != nil {
		return err
	}
	var found []*session
	for _, record := range stored.Sessions {
		s := &session{sessionRecord: record, taken: d.now()}
		group, err := d.parent.Child(s.ID)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.group = group
		d.sessions.add(s)
		found = append(found, s)
	}
	// What they did is in the log before they are forgotten.
	if err := d.readWaiting(); err != nil {
		return err
	}
	if err := d.clearStaging(); err != nil {
		return err
	}
	for _, s := range found {
		if err := d.restoreSession(s); err != nil {
			return err
		}
	}
	strangers, err := d.clearCgroups()
	if err != nil {
		return err
	}
	if err := d.clearTable(strangers); err != nil {
		return err
	}
	return d.saveSessions()
}

// restoreSession takes up a session that is in the table, or ends it.
func (d *Daemon) restoreSession(s *session) (err error) {
	populated := false
	if s.group != nil {
		if populated, err = s.group.Populated(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !s.Recorded && !d.earlier.has(s.ID, sessionStarted) {
		if !populated {
			d.sessions.remove(s) // whoever asked for it was not answered, and nothing ran in it
			return nil
		}
		d.recordStart(s, &controlv1.LaunchResponse{})
	}
	d.sessions.recorded(s)
	if s.group == nil {
		d.endSession(s)
		return nil
	}
	if err := d.watcher.Watch(s.group); err != nil {
		return err
	}
	if s.Adopted != nil { // the daemon may have been killed before it let the tree go on
		if err := s.group.Thaw(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	d.checkSession(s.ID)
	return nil
}

// clearCgroups removes the cgroups that belong to no session and are empty. It
// returns the others, which stay as they are.
func (d *Daemon) clearCgroups() (strangers map[uint64]bool, err error) {
	strangers = map[uint64]bool{}
	children, err := d.parent.Children()
	if err != nil {
		return nil, err
	}
	for _, name := range children {
		if _, known := d.sessions.find(name); known {
			continue
		}
		group, err := d.parent.Child(name)
		if err != nil {
			return nil, err
		}
		if err := group.Remove(); err != nil {
			strangers[group.ID] = true
			d.log.Warn("a cgroup of no known session is left alone", "cgroup", group.Path, "error", err)
		}
	}
	return strangers, nil
}

// clearTable makes the kernel's table say what sessions there are: it forgets
// those that ended or never began, and gets those that run and that it lacks.
func (d *Daemon) clearTable(strangers map[uint64]bool) error {
	table, err := d.kernel.Sessions()
	if err != nil {
		return err
	}
	running := map[uint64]*session{} // and not in the table
	for _, s := range d.sessions.list(false) {
		running[s.group.ID] = s
	}
	for _, k := range table {
		s := running[k.Cgroup]
		if s != nil && s.Number == k.ID {
			delete(running, k.Cgroup)
			continue
		}
		if strangers[k.Cgroup] {
			continue
		}
		if err := d.kernel.RemoveSession(k.Cgroup); err != nil {
			return err
		}
	}
	for _, s := range running {
		d.log.Warn("a session that runs was not in the kernel's table: its programs are not those that it was started under",
			"session", s.ID, "agent", s.Agent)
		number, done, err := d.holdNumber(s.Agent)
		if err != nil {
			return err
		}
		err = d.kernel.AddSession(bpf.Session{ID: s.Number, Agent: number, Cgroup: s.group.ID})
		done()
		if err != nil {
			return err
		}
	}
	return nil
}
