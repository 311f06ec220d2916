// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// Grant is access given to one session until a deadline. It is asked for only
// where the agent's policies say nothing: no deny line is overridden.
type Grant struct {
	Session  uint64        // Session.ID
	Cgroup   uint64        // Session.Cgroup
	Deadline time.Duration // of the boot clock, see BootTime; it counts suspend and follows no one's watch
	Uses     uint32        // how often something may be opened, run or connected to under it; 0: any number
	Kill     bool          // at its end, a session that has mapped a file under it is killed
	Files    []GrantFile
	Network  []GrantNetwork
}

// GrantFile is a file or directory, and everything below it.
type GrantFile struct {
	Path   string // absolute and clean
	Access policy.Access
}

// GrantNetwork is addresses to connect to.
type GrantNetwork struct {
	Prefix   netip.Prefix
	Protocol uint8    // IPPROTO_TCP or IPPROTO_UDP
	Ports    []uint16 // none: all
}

// GrantState is what the kernel has of a grant.
type GrantState struct {
	Deadline time.Duration // of the boot clock
	Uses     int64         // left; -1: any number
	Revoked  bool
}

// grants is what is in the tables of grants.
type grants struct {
	issued  map[uint32]Grant
	kills   int                // of those issued, with Kill
	placed  map[uint64]*places // by session
	held    map[uint64]held    // by cgroup
	watched *watched           // nil: it is not known
	next    uint32             // number to try first
	serial  uint32
	max     uint32
}

// held is what a session may hold open under grants, those that are over and
// forgotten too. It is looked at until the session has ended.
type held struct{ files, sockets bool }

func (g *grants) init(maps map[string]*ebpf.Map) {
	g.issued, g.placed, g.held = map[uint32]Grant{}, map[uint64]*places{}, map[uint64]held{}
	g.max = maps[enforcerMapGrants].MaxEntries()
}

// of returns the places of a session.
func (g *grants) of(session uint64) *places {
	if g.placed[session] == nil {
		g.placed[session] = newPlaces()
	}
	return g.placed[session]
}

// put notes what is issued.
func (g *grants) put(number uint32, x Grant) {
	g.issued[number] = x
	if x.Kill {
		g.kills++
	}
	g.hold(&x)
}

// drop is the other way round. What its session can have opened stays open.
func (g *grants) drop(number uint32) {
	x := g.issued[number]
	delete(g.issued, number)
	if x.Kill {
		g.kills--
	}
	if p := g.of(x.Session); p.grants == 0 {
		delete(g.placed, x.Session)
	}
}

// BootTime returns the time since the host booted, suspend included: the clock
// of deadlines.
func BootTime() time.Duration {
	var ts unix.Timespec
	// It fails for clocks that don't exist only.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// Issue puts a grant in force and returns its number. On an error nothing of it
// stays; a *CapacityError says that a table is full.
func (e *Enforcer) Issue(g Grant) (number uint32, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkGrant(&g); err != nil {
		return 0, err
	}
	if number, err = e.grants.number(); err != nil {
		return 0, err
	}
	if err := e.placeGrant(number, &g); err != nil {
		return 0, fmt.Errorf("issue a grant: %w", err)
	}
	if err = e.watchGrants(); err == nil {
		err = e.countGrants(g.Session, g.Cgroup)
	}
	if err == nil {
		err = e.writeGrant(number, &g)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("issue a grant: %w", err), e.displaceGrant(number))
	}
	return number, nil
}

// placeGrant writes the places of a grant that is not live yet. On an error they
// are as before.
func (e *Enforcer) placeGrant(number uint32, g *Grant) error {
	p := e.grants.of(g.Session)
	c := p.change()
	err := c.add(e, number, g)
	if err == nil {
		err = e.makeSo(c)
	}
	if err != nil {
		if p.grants == 0 {
			delete(e.grants.placed, g.Session)
		}
		return err
	}
	p.grants++
	e.grants.put(number, *g)
	return nil
}

// displaceGrant takes a grant that does not live out of its places. On an error it
// stays there, and keeps its number.
func (e *Enforcer) displaceGrant(number uint32) error {
	g := e.grants.issued[number]
	p := e.grants.of(g.Session)
	c := p.change()
	c.remove(e, number, &g)
	if err := e.makeSo(c); err != nil {
		return err
	}
	p.grants--
	e.grants.drop(number)
	err := e.countGrants(g.Session, g.Cgroup)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil // it has ended
	}
	return errors.Join(err, e.watchGrants())
}

// countGrants tells the programs whether they have to look for grants of a session.
func (e *Enforcer) countGrants(session, cgroup uint64) error {
	var s enforcerSession
	if err := e.maps[enforcerMapSessions].Lookup(cgroup, &s); err != nil {
		return fmt.Errorf("find the session of a grant: %w", err)
	}
	n := 0
	if p := e.grants.placed[session]; p != nil {
		n = p.grants
	}
	s.Grants = uint32(n)
	if err := e.maps[enforcerMapSessions].Update(cgroup, &s, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("count a session's grants: %w", err)
	}
	return nil
}

func (e *Enforcer) checkGrant(g *Grant) error {
	if len(g.Files) > 0 && !e.full {
		return errors.New("issue a grant: files can be granted on the full tier only")
	}
	for _, f := range g.Files {
		if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path || f.Access == 0 {
			return fmt.Errorf("issue a grant: %q is not an absolute, clean path with rights", f.Path)
		}
	}
	for _, n := range g.Network {
		if !n.Prefix.IsValid() || (n.Protocol != unix.IPPROTO_TCP && n.Protocol != unix.IPPROTO_UDP) {
			return fmt.Errorf("issue a grant: %v of protocol %d is not a prefix of TCP or UDP", n.Prefix, n.Protocol)
		}
	}
	return nil
}

// number finds one that is free.
func (g *grants) number() (uint32, error) {
	if len(g.issued) >= int(g.max)-1 {
		return 0, &CapacityError{What: "grants", Key: "grants", Need: 1, Max: g.max - 1}
	}
	for {
		g.next = g.next%(g.max-1) + 1
		if _, taken := g.issued[g.next]; !taken {
			return g.next, nil
		}
	}
}

// writeGrant makes a grant live.
func (e *Enforcer) writeGrant(number uint32, g *Grant) error {
	// A serial is not used twice, also over a restart: it follows the boot clock in hundredths of a second.
	e.grants.serial = max(e.grants.serial+1, uint32(BootTime()/(10*time.Millisecond)))
	v := enforcerGrant{Session: g.Session, Deadline: uint64(max(g.Deadline, 0)), Serial: e.grants.serial}
	if g.Uses != 0 {
		v.Uses = int64(g.Uses)
		v.Flags |= uint32(enforcerGrantFlagGRANT_COUNTED)
	}
	if g.Kill {
		v.Flags |= uint32(enforcerGrantFlagGRANT_KILL)
	}
	if err := e.maps[enforcerMapGrants].Update(number, &v, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("write grant %d: %w", number, err)
	}
	return nil
}

// Revoke ends a grant: the next hook no longer finds it. What the tables have of
// it stays until Forget.
func (e *Enforcer) Revoke(number uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.readGrant(number)
	if err != nil {
		return err
	}
	v.Deadline = 0
	if err := e.maps[enforcerMapGrants].Update(number, &v, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("revoke grant %d: %w", number, err)
	}
	return nil
}

// Forget takes a grant that is over out of the tables. Its number may be given
// to another one; what was opened under it stays closed.
func (e *Enforcer) Forget(number uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.grants.issued[number]; !ok {
		return nil
	}
	if err := e.maps[enforcerMapGrants].Update(number, &enforcerGrant{}, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("forget grant %d: %w", number, err)
	}
	return e.displaceGrant(number)
}

// GrantState reads what the kernel has of a grant.
func (e *Enforcer) GrantState(number uint32) (GrantState, error) {
	v, err := e.readGrant(number)
	if err != nil {
		return GrantState{}, err
	}
	s := GrantState{Deadline: time.Duration(v.Deadline), Uses: -1, Revoked: v.Deadline == 0}
	if v.Flags&uint32(enforcerGrantFlagGRANT_COUNTED) != 0 {
		s.Uses = max(v.Uses, 0)
	}
	return s, nil
}

func (e *Enforcer) readGrant(number uint32) (v enforcerGrant, err error) {
	if err := e.maps[enforcerMapGrants].Lookup(number, &v); err != nil {
		return v, fmt.Errorf("read grant %d: %w", number, err)
	}
	return v, nil
}

// Grants returns the numbers of the grants in the tables.
func (e *Enforcer) Grants() []uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.grants.issued))
}
