// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/policy"
)

// state is what is attached while a sample is taken.
type state int

const (
	nothing  state = iota
	empty          // one LSM program on the opening of files, which allows
	enforced       // everything
)

// agents of the policies, each with a worker of the same name.
const (
	agentName = "coding-agent"
	fewName   = "few-rules"
	manyName  = "many-rules"
)

// member is a worker that is confined while everything is enforced.
type member struct {
	*worker
	subject string
	group   *cgroup.Group
}

// enforcement attaches and detaches. Its members are in their cgroups for good,
// so that these cost all states the same.
type enforcement struct {
	full    bool
	parent  *cgroup.Parent
	pins    string
	set     bpf.Set
	members []*member

	now      state
	empty    link.Link
	enforcer *bpf.Enforcer
	reader   *bpf.Reader
	read     chan denials
	denied   denials // in all

	labelBytes uint32 // of a process
}

// denials are what members were denied, with one for an example.
type denials struct {
	n    int
	last string
}

func newEnforcement(full bool, rulesets []*policy.Ruleset) (*enforcement, error) {
	name := fmt.Sprint("bailiff-bench-", os.Getpid())
	parent, err := cgroup.Open(name)
	if err != nil {
		return nil, err
	}
	e := &enforcement{full: full, parent: parent, pins: "/sys/fs/bpf/" + name}
	e.set = bpf.Set{Rulesets: rulesets, Agents: map[string]string{}}
	for _, r := range rulesets {
		e.set.Agents[r.Agent] = r.Agent
	}
	return e, nil
}

// add makes a worker a member, whose agent has the same name.
func (e *enforcement) add(w *worker) error {
	subject, err := policy.ParseSubject(w.name)
	if err != nil {
		return err
	}
	group, err := e.parent.Make(w.name)
	if err != nil {
		return err
	}
	e.members = append(e.members, &member{w, subject, group})
	return group.Add(w.command.Process.Pid)
}

// enter attaches what a state has and detaches what it has not.
func (e *enforcement) enter(s state) error {
	if s == e.now {
		return nil
	}
	if err := e.leave(); err != nil {
		return err
	}
	var err error
	switch s {
	case empty:
		e.empty, err = attachEmpty()
	case enforced:
		err = e.enforce()
	}
	if err == nil {
		e.now = s
	}
	return err
}

func (e *enforcement) leave() (err error) {
	switch e.now {
	case empty:
		err = e.empty.Close()
	case enforced:
		err = e.release()
	}
	e.now = nothing
	return err
}

func (e *enforcement) enforce() (err error) {
	// What is there and of no session when the programs come is denied everything.
	if err := e.moveOut(); err != nil {
		return err
	}
	e.enforcer, err = bpf.Load(bpf.Options{PinDir: e.pins, Cgroup: e.parent.Path, Level: e.parent.Level, Full: e.full})
	if err != nil {
		removed := bpf.Remove(e.pins)
		return errors.Join(err, removed)
	}
	defer func() {
		if err != nil {
			removed := bpf.Remove(e.pins)
			err = errors.Join(err, e.enforcer.Close(), removed)
		}
	}()
	if e.reader, err = e.enforcer.NewReader(); err != nil {
		return err
	}
	e.read = make(chan denials, 1)
	go func() { e.read <- readEvents(e.reader) }()
	homes, err := mounts()
	if err != nil {
		return err
	}
	if err := errors.Join(e.enforcer.SetHomes(homes), e.apply()); err != nil {
		return err
	}
	for i, m := range e.members {
		number, err := e.enforcer.AgentNumber(m.subject, m.subject)
		if err != nil {
			return err
		}
		s := bpf.Session{ID: uint64(i) + 1, Agent: number, Cgroup: m.group.ID}
		if err := errors.Join(e.enforcer.AddSession(s), e.enforcer.Label(m.pidfd, s), m.group.Add(m.command.Process.Pid)); err != nil {
			return err
		}
	}
	return e.measureLabel()
}

// moveOut takes the members out of their cgroups.
func (e *enforcement) moveOut() error {
	root, err := cgroup.Root()
	if err != nil {
		return err
	}
	for _, m := range e.members {
		if err := (&cgroup.Group{Path: root}).Add(m.command.Process.Pid); err != nil {
			return err
		}
	}
	return nil
}

func (e *enforcement) measureLabel() error {
	pins, err := filepath.Glob(filepath.Join(e.pins, "*", "maps", "labels"))
	if err != nil || len(pins) != 1 {
		return fmt.Errorf("find the labels: %v: %w", pins, err)
	}
	m, err := ebpf.LoadPinnedMap(pins[0], nil)
	if err != nil {
		return fmt.Errorf("find the labels: %w", err)
	}
	e.labelBytes = m.ValueSize()
	return m.Close()
}

// apply puts the policies in force, and with them a new generation.
func (e *enforcement) apply() error {
	_, err := e.enforcer.Apply(e.set)
	return err
}

// readEvents takes events off the ring as the daemon does.
func readEvents(r *bpf.Reader) (d denials) {
	for {
		event, err := r.Read(time.Time{})
		if err != nil || r.Commit(event.Position) != nil {
			return d
		}
		if event.Verdict != "allow" {
			d.n++
			d.last = fmt.Sprintf("%s %q %v: %s", event.Operation, event.Path, event.Access, event.Reason)
		}
	}
}

// release ends enforcement and keeps count of denials.
func (e *enforcement) release() error {
	err := e.reader.Stop()
	if d := <-e.read; d.n > 0 {
		e.denied.n += d.n
		e.denied.last = d.last
	}
	err = errors.Join(err, e.reader.Close())
	for _, m := range e.members {
		err = errors.Join(err, e.enforcer.RemoveSession(m.group.ID))
	}
	err = errors.Join(err, e.enforcer.Close())
	removed := bpf.Remove(e.pins)
	return errors.Join(err, removed)
}

// crowd adds sessions that nobody is in.
func (e *enforcement) crowd(n int) error {
	for i := range n {
		if err := e.enforcer.AddSession(crowdSession(i)); err != nil {
			return err
		}
	}
	return nil
}

func (e *enforcement) disperse(n int) error {
	for i := range n {
		if err := e.enforcer.RemoveSession(crowdSession(i).Cgroup); err != nil {
			return err
		}
	}
	return nil
}

func crowdSession(i int) bpf.Session {
	return bpf.Session{ID: 1_000_000 + uint64(i), Agent: 1, Cgroup: 1<<40 + uint64(i)}
}

func (e *enforcement) close() error {
	err := e.leave()
	for _, m := range slices.Backward(e.members) {
		err = errors.Join(err, m.stop(), m.group.Remove())
	}
	return errors.Join(err, e.parent.Remove())
}
