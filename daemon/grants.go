// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/metrics"
)

// grantKernel is what grants need of the kernel side.
type grantKernel interface {
	Issue(bpf.Grant) (uint32, error)
	Revoke(uint32) error
	Forget(uint32) error
	GrantState(uint32) (bpf.GrantState, error)
	RestoreGrants(map[uint32]bpf.Grant) error
}

// grants is the table of grants, and what becomes of them. The order that
// survives being killed at any moment: a grant is written down, then made in the
// kernel, then told, then its number is written down; it ends in the kernel, then
// what is open under it is cut off, then its end is told, then it is struck out,
// and last the kernel forgets it. What a daemon that comes back finds written down
// without a number, it strikes out; what it finds in the kernel alone, it removes.
type grants struct {
	kernel  grantKernel
	store   *store
	log     *slog.Logger
	metrics *metrics.Metrics
	record  func(events []audit.Event, saved func()) // into the log, and only then calls saved
	told    func(id, message string) bool            // whether an earlier life told so, and may not know it
	now     func() time.Time
	boot    func() time.Duration
	bootID  string                // tells this run of the host from others
	arm     func(time.Duration)   // has sweep called at a time of the boot clock; 0: no need
	live    func(*session) bool   // whether a session still runs
	cut     func(cutting) cutDone // ends what is open under grants that are over
	drain   func()                // returns when the log has what was told of so far

	unsaved atomic.Bool // what is written down is not what the log tells

	mu    sync.Mutex
	byID  map[string]*grant // live and remembered ones
	open  []*grant          // those of them that have not ended, oldest first
	ended []string          // remembered, oldest first

	named    sync.Mutex // what follows: asked by who writes the log, whom others wait for under mu
	byNumber map[uint32][]*grant
}

// maxEndedGrants bounds how many grants that ended are remembered for listings.
const maxEndedGrants = 1000

// grantsFile holds the grants that have not ended.
const grantsFile = "grants"

type storedGrants struct {
	Boot   string // of the clock that their deadlines are of
	Grants []*grant
}

// cutting is what has to be cut off from one session.
type cutting struct {
	session string
	over    []*grant
	live    []*grant // others of the session, which may allow the same
}

// cutDone is what was.
type cutDone struct {
	sockets int
	killed  bool
	err     error
}

// all returns the grants that have not ended, oldest first; g.mu is held.
func (g *grants) all() []*grant { return slices.Clone(g.open) }

// begun takes a grant in that has not ended; g.mu is held.
func (g *grants) begun(x *grant) {
	g.byID[x.ID] = x
	i, _ := slices.BinarySearchFunc(g.open, x, compareGrants)
	g.open = slices.Insert(g.open, i, x)
}

// over has a grant no longer among those that have not ended; g.mu is held.
func (g *grants) over(x *grant) {
	if i, found := slices.BinarySearchFunc(g.open, x, compareGrants); found {
		g.open = slices.Delete(g.open, i, i+1)
	}
}

func compareGrants(a, b *grant) int {
	return cmp.Or(cmp.Compare(a.Begin, b.Begin), strings.Compare(a.ID, b.ID))
}

// save writes the grants that have not ended down; g.mu is held.
func (g *grants) save() error {
	err := g.store.write(grantsFile, storedGrants{Boot: g.bootID, Grants: g.open})
	g.unsaved.Store(err != nil)
	return err
}

// retry saves again what could not be saved.
func (g *grants) retry() {
	if !g.unsaved.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved()
}

// errSessionEnded: a grant was asked for a session that is no more.
var errSessionEnded = errors.New("the session has ended")

// issue puts a grant in force. On an error nothing of it stays.
func (g *grants) issue(s *session, x *grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.live(s) || s.group == nil {
		return errSessionEnded
	}
	x.ID, _ = drawID("g-")
	x.Session, x.Agent, x.Task = s.ID, s.Agent, s.Task
	x.Issued, x.Begin = g.now(), g.boot()
	x.Deadline = x.Begin + x.TTL
	g.begun(x)
	err := g.save()
	if err == nil {
		err = g.make(s, x)
	}
	if err != nil {
		g.over(x)
		delete(g.byID, x.ID)
		return errors.Join(err, g.save())
	}
	g.metrics.Grants.Inc()
	g.record([]audit.Event{x.event(grantIssued, x.fields())}, func() { err = g.save() })
	if err != nil { // it would be lost with this daemon
		g.end([]*grant{x}, endRevoked, "")
		return err
	}
	g.log.Info("grant issued", "grant", x.ID, "session", x.Session, "resources", x.resources(), "ttl", x.TTL, "by", x.By)
	g.metrics.GrantsIssued.Inc()
	g.rearm()
	return nil
}

// make gives a grant to the kernel. What it allows at once is told of when its
// number is known.
func (g *grants) make(s *session, x *grant) (err error) {
	g.named.Lock()
	defer g.named.Unlock()
	x.Number, err = g.kernel.Issue(x.kernel(s.Number, s.group.ID))
	if err == nil {
		g.number(x)
	}
	return err
}

// number notes what the kernel calls a grant; g.named is held. A number is given
// again when a grant has ended, so the old ones are kept beside it.
func (g *grants) number(x *grant) {
	g.byNumber[x.Number] = append(g.byNumber[x.Number], x)
}

// idOf returns the id of the grant that had a number at a time of the boot clock.
func (g *grants) idOf(number uint32, at time.Duration) string {
	g.named.Lock()
	defer g.named.Unlock()
	for _, x := range slices.Backward(g.byNumber[number]) {
		if x.Begin <= at {
			return x.ID
		}
	}
	return fmt.Sprintf("number %d", number)
}

// rearm has the next sweep done when it is due; g.mu is held.
func (g *grants) rearm() {
	var next time.Duration
	for _, x := range g.open {
		due := x.Deadline
		if x.Uses != 0 && !x.UsedUp {
			due = min(due, g.boot()+useEvery)
		}
		if next == 0 || due < next {
			next = due
		}
	}
	g.arm(next)
}

// useEvery is how often is looked whether grants are used up.
const useEvery = time.Second

// Messages of the records of grants.
const (
	grantIssued = "grant issued"
	grantGoesOn = "grant goes on"
	grantUsedUp = "grant used up"
	grantEnded  = "grant ended"
)

// event is a line of the log about the grant.
func (x *grant) event(message string, fields map[string]string) audit.Event {
	return audit.Event{
		Kind: audit.Grant, Grant: x.ID, Agent: x.Agent, Session: x.Session, Task: x.Task,
		Message: message, Fields: fields,
	}
}

// fields tell what the grant gives.
func (x *grant) fields() map[string]string {
	fields := map[string]string{
		"resources": x.resources(), "ttl": x.TTL.String(), "by": x.By,
		"expires": x.Issued.Add(x.TTL).UTC().Format(time.RFC3339),
	}
	if x.Uses != 0 {
		fields["uses"] = fmt.Sprint(x.Uses)
	}
	if x.Kill {
		fields["kill_mapped"] = "true"
	}
	if x.Reason != "" {
		fields["reason"] = x.Reason
	}
	return fields
}
