// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/cgroup"
)

// session is one running or ended instance of an agent.
type session struct {
	ID      string // also the name of its cgroup
	Number  uint64 // what the kernel calls it
	Agent   string
	Task    string
	Context map[string]string
	Command []string
	PID     int
	UID     uint32
	Started time.Time
	Ended   time.Time
	Tier    string

	group   *cgroup.Group
	denials denials
}

// sessions is the table of sessions.
type sessions struct {
	mu       sync.Mutex
	byID     map[string]*session // running and remembered ones
	byNumber map[uint64]*session
	ended    []string // remembered, oldest first
}

// maxEnded bounds how many ended sessions are remembered for listings.
const maxEnded = 1000

// sessionsFile holds the running sessions and the agents' numbers.
const sessionsFile = "sessions"

type storedSessions struct {
	Agents   map[string]uint32
	Sessions []*session
}

var idEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// newID draws a session's number and the name that says it.
func newID() (string, uint64) {
	var b [8]byte
	rand.Read(b[3:]) // never fails
	number := binary.BigEndian.Uint64(b[:])
	return "s-" + idEncoding.EncodeToString(b[3:]), number
}

func (t *sessions) add(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[s.ID], t.byNumber[s.Number] = s, s
}

func (t *sessions) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, s.ID)
	delete(t.byNumber, s.Number)
}

// end marks a session as ended; false if it was already.
func (t *sessions) end(s *session, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.Ended.IsZero() {
		return false
	}
	s.Ended = now
	t.ended = append(t.ended, s.ID)
	for len(t.ended) > maxEnded {
		old := t.byID[t.ended[0]]
		delete(t.byID, old.ID)
		delete(t.byNumber, old.Number)
		t.ended = t.ended[1:]
	}
	return true
}

func (t *sessions) find(id string) (*session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.byID[id]
	return s, ok
}

func (t *sessions) numbered(number uint64) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byNumber[number]
}

// list returns the sessions, running ones alone unless all are wanted, by start.
func (t *sessions) list(all bool) []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*session
	for _, s := range t.byID {
		if all || s.Ended.IsZero() {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
	})
	return list
}

// saveSessions writes the running sessions down.
func (d *Daemon) saveSessions() error {
	return d.store.write(sessionsFile, storedSessions{Agents: d.kernel.Agents(), Sessions: d.sessions.list(false)})
}

// restoreSessions takes up the sessions that run, and ends those that ended
// while no daemon was there. Cgroups that belong to no session are removed if
// they are empty; if they are not, they stay as they are: the kernel denies
// everything to a cgroup that it knows no agent for only where it is labelled,
// so it is said.
func (d *Daemon) restoreSessions(stored storedSessions) error {
	known := map[string]bool{}
	for _, s := range stored.Sessions {
		known[s.ID] = true
		group, err := d.parent.Child(s.ID)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.group = group
		d.sessions.add(s)
		if group == nil {
			d.endSession(s)
			continue
		}
		if err := d.watcher.Watch(group); err != nil {
			return err
		}
		d.checkSession(s.ID)
	}
	children, err := d.parent.Children()
	if err != nil {
		return err
	}
	for _, name := range children {
		if known[name] {
			continue
		}
		group, err := d.parent.Child(name)
		if err != nil {
			return err
		}
		if err := group.Remove(); err != nil {
			d.log.Warn("a cgroup of no known session is left alone", "cgroup", group.Path, "error", err)
		}
	}
	return d.saveSessions()
}

// checkSession ends a session whose last process has gone.
func (d *Daemon) checkSession(id string) {
	s, ok := d.sessions.find(id)
	if !ok || s.group == nil || s.Started.IsZero() {
		return
	}
	populated, err := s.group.Populated()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("a session cannot be looked at", "session", id, "error", err)
		return
	}
	if !populated {
		d.endSession(s)
	}
}

func (d *Daemon) endSession(s *session) {
	if !d.sessions.end(s, d.now()) {
		return
	}
	if s.group != nil {
		if err := s.group.Remove(); err != nil {
			d.log.Error("a session's cgroup stays", "session", s.ID, "error", err)
		}
		if err := d.kernel.RemoveSession(s.group.ID); err != nil {
			d.log.Error("a session stays in the kernel's table", "session", s.ID, "error", err)
		}
	}
	d.drain()
	if err := d.saveSessions(); err != nil {
		d.log.Error("the sessions cannot be written down", "error", err)
	}
	d.audit.Write(audit.Event{
		Kind: audit.Session, Agent: s.Agent, Session: s.ID, Task: s.Task, Message: "session ended",
		PID:    s.PID,
		Fields: map[string]string{"lasted": s.Ended.Sub(s.Started).Round(time.Millisecond).String(), "denied": fmt.Sprint(s.denials.total())},
	})
	d.log.Info("session ended", "session", s.ID, "agent", s.Agent)
}
