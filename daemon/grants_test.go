// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/internal/metrics"
	"bailiff.dev/bailiff/policy"
)

// fakeKernel has the tables of grants, and outlives the daemons of a test.
type fakeKernel struct {
	tables map[uint32]bpf.Grant
	states map[uint32]bpf.GrantState
	next   uint32
	full   bool
	killed func() // called when a grant has been issued, before anyone hears of it
}

func (k *fakeKernel) Issue(g bpf.Grant) (uint32, error) {
	if k.full {
		return 0, &bpf.CapacityError{What: "grants", Need: 1, Max: 1}
	}
	k.next++
	k.tables[k.next] = g
	uses := int64(-1)
	if g.Uses > 0 {
		uses = int64(g.Uses)
	}
	k.states[k.next] = bpf.GrantState{Deadline: g.Deadline, Uses: uses}
	if k.killed != nil {
		k.killed()
	}
	return k.next, nil
}

func (k *fakeKernel) Revoke(number uint32) error {
	s := k.states[number]
	s.Deadline, s.Revoked = 0, true
	k.states[number] = s
	return nil
}

func (k *fakeKernel) Forget(number uint32) error {
	delete(k.tables, number)
	delete(k.states, number)
	return nil
}

func (k *fakeKernel) GrantState(number uint32) (bpf.GrantState, error) { return k.states[number], nil }

func (k *fakeKernel) RestoreGrants(known map[uint32]bpf.Grant) error {
	maps.DeleteFunc(k.tables, func(n uint32, _ bpf.Grant) bool { _, ok := known[n]; return !ok })
	return nil
}

// grantTest is a daemon's grants over a kernel, a store and a clock that outlive it.
type grantTest struct {
	*grants
	t        *testing.T
	kernel   *fakeKernel
	dir      string
	boot     time.Duration
	wall     time.Time // when boot was 0
	sessions map[string]*session
	events   []audit.Event
	past     []audit.Event // that an earlier life may not know to have told
	died     bool          // once something has been told
	cuts     []string
	armed    time.Duration
}

func newGrantTest(t *testing.T) *grantTest {
	g := &grantTest{
		t: t, dir: t.TempDir(), boot: time.Hour, wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		kernel: &fakeKernel{tables: map[uint32]bpf.Grant{}, states: map[uint32]bpf.GrantState{}}, sessions: map[string]*session{},
	}
	for i, id := range []string{"s-1", "s-2"} {
		g.sessions[id] = &session{
			sessionRecord: sessionRecord{ID: id, Number: uint64(i + 1), Agent: "spiffe://local/agent/a"}, group: &cgroup.Group{ID: uint64(i + 10)},
		}
	}
	g.begin()
	return g
}

// begin is another life of the daemon.
func (g *grantTest) begin() {
	g.grants = &grants{
		kernel: g.kernel, store: &store{dir: g.dir}, log: slog.New(slog.DiscardHandler),
		metrics: metrics.New(metrics.Build{}, func() (metrics.Snapshot, error) { return metrics.Snapshot{}, nil }),
		record: func(events []audit.Event, saved func()) {
			g.events = append(g.events, events...)
			if g.died {
				panic("SIGKILL")
			}
			saved()
		},
		told: func(id, message string) bool {
			return slices.ContainsFunc(g.past, func(ev audit.Event) bool { return ev.Grant == id && ev.Message == message })
		},
		now: func() time.Time { return g.wall.Add(g.boot) }, boot: func() time.Duration { return g.boot }, bootID: "boot 1",
		arm: func(at time.Duration) { g.armed = at }, live: func(s *session) bool { return s.Ended.IsZero() },
		cut: func(c cutting) cutDone {
			g.cuts = append(g.cuts, fmt.Sprintf("%s: %d over, %d live", c.session, len(c.over), len(c.live)))
			return cutDone{sockets: 1}
		},
		drain: func() {}, byID: map[string]*grant{}, byNumber: map[uint32][]*grant{},
	}
}

func (g *grantTest) restore(adopted bool) {
	g.t.Helper()
	if err := g.grants.restore(adopted, func(id string) (*session, bool) { s, ok := g.sessions[id]; return s, ok }); err != nil {
		g.t.Fatal(err)
	}
}

func (g *grantTest) issued(session string, ttl time.Duration, uses uint32) *grant {
	g.t.Helper()
	x := &grant{TTL: ttl, Uses: uses, By: "uid 0", Network: []grantedNetwork{{netip.MustParsePrefix("10.0.0.5/32"), []policy.PortSpan{{Low: 443, High: 443}}, policy.TCP}}}
	if err := g.issue(g.sessions[session], x); err != nil {
		g.t.Fatal(err)
	}
	return x
}

// says fails the test unless these are the lines of the log since it was last asked.
func (g *grantTest) says(want ...string) {
	g.t.Helper()
	var got []string
	for _, ev := range g.events {
		line := ev.Message
		if how := ev.Fields["how"]; how != "" {
			line += ": " + how + " " + ev.Fields["ended"]
		}
		got = append(got, line)
		if ev.Kind != audit.Grant || ev.Grant == "" || ev.Session == "" || ev.Agent == "" {
			g.t.Errorf("a line does not say what it is about: %+v", ev)
		}
	}
	if !slices.Equal(got, want) {
		g.t.Errorf("the log says %q, want %q", got, want)
	}
	g.events = nil
}

// is fails the test unless these are in the kernel and in the file, and the log
// and the kernel agree about their number.
func (g *grantTest) is(list ...*grant) {
	g.t.Helper()
	var stored storedGrants
	if err := g.store.read(grantsFile, &stored); err != nil {
		g.t.Fatal(err)
	}
	if len(stored.Grants) != len(list) || len(g.kernel.tables) != len(list) || len(g.list(false)) != len(list) {
		g.t.Errorf("%d are written down, %d in the kernel, %d listed, want %d", len(stored.Grants), len(g.kernel.tables), len(g.list(false)), len(list))
	}
	for _, x := range list {
		same := func(y *grant) bool { return y.ID == x.ID && y.Number == x.Number && y.Deadline == x.Deadline }
		if !slices.ContainsFunc(stored.Grants, same) || g.kernel.tables[x.Number].Deadline != x.Deadline {
			g.t.Errorf("%s is not among %+v, or in the kernel as %+v", x.ID, stored.Grants, g.kernel.tables[x.Number])
		}
	}
}

func TestGrantEndsAtItsDeadline(t *testing.T) {
	g := newGrantTest(t)
	x, y := g.issued("s-1", time.Minute, 0), g.issued("s-1", time.Hour, 0)
	g.says("grant issued", "grant issued")
	g.is(x, y)
	if want := g.boot + time.Minute; g.armed != want || x.Deadline != want || g.kernel.tables[x.Number].Cgroup != 10 {
		t.Errorf("armed for %v, ends at %v, want %v", g.armed, x.Deadline, want)
	}
	g.boot += time.Minute - 1
	g.sweep()
	g.is(x, y)
	g.boot += time.Second + 1 // the timer is late
	g.wall = g.wall.Add(-time.Hour)
	g.sweep()
	g.says("grant ended: expired 2026-03-01T12:01:00Z")
	g.is(y)
	if !slices.Equal(g.cuts, []string{"s-1: 1 over, 1 live"}) || g.armed != y.Deadline {
		t.Errorf("cut off %q, armed for %v", g.cuts, g.armed)
	}
	if id := g.idOf(x.Number, x.Begin); id != x.ID {
		t.Errorf("an event of then is said to be of %s", id)
	}
	if d := g.describe(x); d.State != "expired" || d.Remaining != nil || len(g.list(true)) != 2 {
		t.Errorf("it is described as %v", d)
	}
}

func TestGrantUsedUp(t *testing.T) {
	g := newGrantTest(t)
	x := g.issued("s-1", time.Minute, 3)
	if g.armed != g.boot+useEvery {
		t.Errorf("armed for %v", g.armed)
	}
	if d := g.describe(x); d.State != stateLive || d.GetUsesLeft() != 3 {
		t.Errorf("it is described as %v", d)
	}
	s := g.kernel.states[x.Number]
	s.Uses = 0
	g.kernel.states[x.Number] = s
	g.sweep()
	g.sweep()
	if d := g.describe(x); d.State != stateUsedUp || d.GetUsesLeft() != 0 {
		t.Errorf("it is described as %v", d)
	}
	g.is(x) // what is open stays so
	g.begin()
	g.restore(true)
	g.boot += time.Minute
	g.sweep()
	g.says("grant issued", "grant used up", "grant goes on", "grant ended: used up 2026-03-01T13:01:00Z")
	g.is()
}

func TestRevoke(t *testing.T) {
	g := newGrantTest(t)
	x, z := g.issued("s-1", time.Minute, 0), g.issued("s-2", time.Minute, 0)
	g.issued("s-1", time.Minute, 0)
	g.revoke([]*grant{x}, "uid 7")
	if by := g.events[len(g.events)-1].Fields["by"]; by != "uid 7" {
		t.Errorf("revoked by %q", by)
	}
	if again := g.revoke([]*grant{x}, "uid 7"); len(again) != 0 {
		t.Error("revoked twice")
	}
	g.boot += time.Second
	g.sessions["s-1"].Ended = g.now()
	g.endSession("s-1")
	g.says("grant issued", "grant issued", "grant issued", "grant ended: revoked 2026-03-01T13:00:00Z", "grant ended: session ended 2026-03-01T13:00:01Z")
	g.is(z)
	if err := g.issue(g.sessions["s-1"], &grant{TTL: time.Minute}); !errors.Is(err, errSessionEnded) {
		t.Errorf("a grant for a session that ended: %v", err)
	}
	g.is(z)
}

func TestIssueLeavesNothingOnFailure(t *testing.T) {
	g := newGrantTest(t)
	g.kernel.full = true
	var full *bpf.CapacityError
	if err := g.issue(g.sessions["s-1"], &grant{TTL: time.Minute}); !errors.As(err, &full) {
		t.Errorf("a full table: %v", err)
	}
	g.is()
	// The disk fills up between the two writes.
	g.kernel.full = false
	g.kernel.killed = func() { g.store.dir = filepath.Join(g.dir, "missing") }
	if err := g.issue(g.sessions["s-1"], &grant{TTL: time.Minute}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a full disk: %v", err)
	}
	if len(g.kernel.tables) != 0 || len(g.list(false)) != 0 {
		t.Errorf("something stays: %v, %v", g.kernel.tables, g.list(false))
	}
	g.says("grant issued", "grant ended: revoked 2026-03-01T13:00:00Z")
	if !g.unsaved.Load() {
		t.Error("that it could not be written down is not remembered")
	}
	g.store.dir = g.dir
	g.retry()
	g.is()
}

// Whatever was told before a kill is not told again.
func TestKilledWhileTelling(t *testing.T) {
	g := newGrantTest(t)
	killed := func(f func()) {
		t.Helper()
		g.died = true
		func() {
			defer func() {
				if recover() == nil {
					t.Error("it was not killed")
				}
			}()
			f()
		}()
		g.died, g.past = false, g.events
		g.events = nil
		g.begin()
	}
	killed(func() { g.issued("s-1", time.Minute, 0) })
	g.restore(true) // nobody was answered
	g.says("grant ended: lost 2026-03-01T13:00:00Z")
	g.is()
	g.issued("s-1", time.Minute, 1)
	g.events = nil
	g.kernel.states[2] = bpf.GrantState{Deadline: g.boot + time.Minute}
	killed(g.sweep) // when it is used up
	g.restore(true)
	g.says("grant goes on")
	g.boot += time.Minute
	killed(g.sweep) // at its end
	g.restore(true)
	g.says()
	g.is()
}

func TestGrantsOfAnEarlierLife(t *testing.T) {
	g := newGrantTest(t)
	expired, living, revoked := g.issued("s-1", time.Minute, 0), g.issued("s-1", time.Hour, 0), g.issued("s-1", time.Hour, 0)
	g.issued("s-2", time.Hour, 0)
	gone := g.issued("s-1", time.Hour, 0)
	// Killed once the kernel had it, before anyone knew its number.
	g.kernel.killed = func() { panic("SIGKILL") }
	func() {
		defer func() { _ = recover() }()
		g.issued("s-1", time.Hour, 0)
	}()
	g.kernel.killed = nil
	g.kernel.Revoke(revoked.Number)
	g.kernel.Forget(gone.Number)
	g.sessions["s-2"].Ended = g.now()
	g.events = nil

	g.boot += 10 * time.Minute
	g.begin()
	g.restore(true)
	g.says("grant ended: expired 2026-03-01T13:01:00Z", "grant ended: revoked 2026-03-01T13:10:00Z",
		"grant ended: lost 2026-03-01T13:10:00Z", "grant ended: lost 2026-03-01T13:10:00Z",
		"grant ended: session ended 2026-03-01T13:10:00Z", "grant goes on")
	g.is(living)
	if g.armed != living.Deadline {
		t.Errorf("armed for %v, want %v", g.armed, living.Deadline)
	}
	for _, x := range []*grant{expired, living} {
		if id := g.idOf(x.Number, x.Begin+1); id != x.ID {
			t.Errorf("an event of then is said to be of %s, want %s", id, x.ID)
		}
	}
}

func TestGrantsOfAnEarlierBoot(t *testing.T) {
	g := newGrantTest(t)
	g.issued("s-1", time.Minute, 0)
	g.boot++
	g.issued("s-1", 24*time.Hour, 0)
	g.events = nil
	g.wall, g.boot = g.wall.Add(2*time.Hour), time.Second
	g.begin()
	g.bootID = "boot 2"
	g.restore(false)
	g.says("grant ended: expired 2026-03-01T13:01:00Z", "grant ended: session ended 2026-03-01T14:00:00Z")
	g.kernel.tables = map[uint32]bpf.Grant{}
	g.is()
}

func TestNewTablesLoseGrants(t *testing.T) {
	g := newGrantTest(t)
	g.issued("s-1", time.Hour, 0)
	g.kernel.tables, g.kernel.states = map[uint32]bpf.Grant{}, map[uint32]bpf.GrantState{}
	g.events = nil
	g.begin()
	g.restore(false)
	g.says("grant ended: lost 2026-03-01T13:00:00Z")
	g.is()
}

func TestEndedGrantsAreForgotten(t *testing.T) {
	g := newGrantTest(t)
	for i := range uint32(maxEndedGrants + 10) {
		x := &grant{ID: fmt.Sprint(i), Number: i}
		g.byID[x.ID] = x
		g.number(x) // nobody else is there to lock out
		g.close(x, endRevoked, g.now())
	}
	g.forgetOld()
	if n := len(g.list(true)); n != maxEndedGrants || len(g.byNumber) != n {
		t.Errorf("%d are remembered, %d by number, want %d", n, len(g.byNumber), maxEndedGrants)
	}
}

func TestBootTimer(t *testing.T) {
	timer, err := newBootTimer()
	if err != nil {
		t.Fatal(err)
	}
	at := bpf.BootTime() + 50*time.Millisecond
	for _, when := range []time.Duration{at, 1} { // to come, and past
		if err := timer.set(when); err != nil {
			t.Fatal(err)
		}
		if err := timer.wait(); err != nil || bpf.BootTime() < when {
			t.Errorf("it fired at %v, %v, set to %v", bpf.BootTime(), err, when)
		}
	}
	done := make(chan error)
	go func() { done <- timer.wait() }()
	timer.set(0)
	time.Sleep(10 * time.Millisecond)
	timer.close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed, and it says %v", err)
	}
	if err := timer.set(1); err == nil || !strings.Contains(err.Error(), "set a timer") {
		t.Errorf("set after it was closed: %v", err)
	}
}
