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
	issued map[uint32]Grant
	placed map[uint64]places // by session
	held   map[uint64]held   // by cgroup
	next   uint32            // number to try first
	serial uint32
	max    uint32
}

// held is what a session may hold open under grants, those that are over and
// forgotten too. It is looked at until the session has ended.
type held struct{ files, sockets bool }

// places are the entries of one session.
type places struct {
	paths map[enforcerGrantPathKey]enforcerGrantsAt
	nets  map[enforcerGrantNetKey]enforcerGrantsAt
}

func (g *grants) init(maps map[string]*ebpf.Map) {
	g.issued, g.placed, g.held = map[uint32]Grant{}, map[uint64]places{}, map[uint64]held{}
	g.max = maps[enforcerMapGrants].MaxEntries()
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
	e.grants.issued[number] = g
	err = e.placeGrants(g.Session, g.Cgroup)
	if err == nil {
		err = e.writeGrant(number, &g)
	}
	if err != nil {
		delete(e.grants.issued, number)
		return 0, errors.Join(fmt.Errorf("issue a grant: %w", err), e.placeGrants(g.Session, g.Cgroup))
	}
	return number, nil
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
	g, ok := e.grants.issued[number]
	if !ok {
		return nil
	}
	if err := e.maps[enforcerMapGrants].Update(number, &enforcerGrant{}, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("forget grant %d: %w", number, err)
	}
	delete(e.grants.issued, number)
	return e.placeGrants(g.Session, g.Cgroup)
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
	if err := errors.Join(e.inheritPlaces(), e.inheritHeld()); err != nil {
		return err
	}
	g.issued = maps.Clone(issued)
	if g.issued == nil {
		g.issued = map[uint32]Grant{}
	}
	var errs []error
	cgroups := map[uint64]uint64{}
	for session := range g.placed {
		cgroups[session] = 0
	}
	for _, grant := range g.issued {
		cgroups[grant.Session] = grant.Cgroup
	}
	for session, cgroup := range cgroups {
		errs = append(errs, e.placeGrants(session, cgroup))
	}
	return errors.Join(errs...)
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

// Grants returns the numbers of the grants in the tables.
func (e *Enforcer) Grants() []uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.grants.issued))
}
