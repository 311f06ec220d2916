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
	sessionRecord
	Ended time.Time

	group   *cgroup.Group
	denials denials
	taken   time.Time // when this daemon took it up from one before; zero: it started it
}

// sessionRecord is what is written down of a session that runs.
type sessionRecord struct {
	ID       string // also the name of its cgroup
	Number   uint64 // what the kernel calls it
	Agent    string
	Task     string
	Context  map[string]string
	Command  []string
	Kept     []string // descriptors that were handed on: number and what it is
	PID      int
	UID      uint32
	Started  time.Time
	Tier     string
	Adopted  *adoptedRecord // nil: it was launched
	Recorded bool           // the log has the record of its start; else it may have
}

// adoptedRecord is what became of the tree that a session was made of.
type adoptedRecord struct {
	Processes int // that came into the session
	Killed    int // that held what is forbidden
	Closed    int // sockets that were destroyed
}

// sessions is the table of sessions.
type sessions struct {
	mu       sync.Mutex
	byID     map[string]*session // running and remembered ones
	byNumber map[uint64]*session
	ended    []string // remembered, oldest first

	saving sync.Mutex // what is written last is what is so last
}

// maxEnded bounds how many ended sessions are remembered for listings.
const maxEnded = 1000

// maxDetailed bounds of how many of these, the latest, all is remembered that they
// were denied: their launchers are about to ask.
const maxDetailed = 32

// sessionsFile holds the running sessions and the agents' numbers.
const sessionsFile = "sessions"

type storedSessions struct {
	Agents   map[string]uint32
	Dropped  map[string]uint64 // acts of agents that were not told, counted under numbers that they have no more
	Sessions []sessionRecord
}

var idEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// newID draws a session's number and the name that says it.
func newID() (string, uint64) { return drawID("s-") }

// drawID draws a number, and a name that says it after a prefix.
func drawID(prefix string) (string, uint64) {
	var b [8]byte
	rand.Read(b[3:]) // never fails
	number := binary.BigEndian.Uint64(b[:])
	return prefix + idEncoding.EncodeToString(b[3:]), number
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
	if n := len(t.ended) - maxDetailed; n > 0 {
		t.byID[t.ended[n-1]].denials.trim(oldDenialBytes)
	}
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

// running tells whether a session has not ended.
func (t *sessions) running(s *session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.Ended.IsZero()
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

// records returns what is to be written down of the sessions that run.
func (t *sessions) records() []sessionRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []sessionRecord
	for _, s := range t.byID {
		if s.Ended.IsZero() {
			list = append(list, s.sessionRecord)
		}
	}
	return list
}

// recorded notes that the log has the record of a session's start.
func (t *sessions) recorded(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Recorded = true
}

// saveSessions writes the running sessions down.
func (d *Daemon) saveSessions() error {
	d.sessions.saving.Lock()
	defer d.sessions.saving.Unlock()
	d.unsaved.Store(false)
	agents, dropped := d.kernel.Numbering()
	err := d.store.write(sessionsFile, storedSessions{Agents: agents, Dropped: dropped, Sessions: d.sessions.records()})
	if err != nil {
		d.unsaved.Store(true)
	}
	return err
}

// Messages of the records that each session has one of.
const (
	sessionStarted = "session started"
	sessionEnded   = "session ended"
)

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
	d.grants.endSession(s.ID)
	if s.group != nil {
		if err := s.group.Remove(); err != nil {
			d.log.Error("a session's cgroup stays", "session", s.ID, "error", err)
		}
		if err := d.kernel.RemoveSession(s.group.ID); err != nil {
			d.log.Error("a session stays in the kernel's table", "session", s.ID, "error", err)
		}
	}
	d.drainSession(s)
	err := d.recordEnd(s)
	if err != nil {
		d.log.Error("the sessions cannot be written down", "error", err)
	}
	d.log.Info(sessionEnded, "session", s.ID, "agent", s.Agent)
}

// recordEnd writes the record of a session's end, if the log hasn't got it.
func (d *Daemon) recordEnd(s *session) error {
	if !s.taken.IsZero() && d.earlier.has(s.ID, sessionEnded) {
		return d.saveSessions()
	}
	fields := map[string]string{"lasted": s.Ended.Sub(s.Started).Round(time.Millisecond).String(), "denied": fmt.Sprint(s.denials.total())}
	if !s.taken.IsZero() {
		fields["denied_since"] = s.taken.UTC().Format(time.RFC3339Nano)
	}
	var err error
	d.record(audit.Event{
		Kind: audit.Session, Agent: s.Agent, Session: s.ID, Task: s.Task, Message: sessionEnded, PID: s.PID, Fields: fields,
	}, func() { err = d.saveSessions() })
	return err
}
