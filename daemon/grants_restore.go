// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"strings"
	"time"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
)

// bootID names this run of the host.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("learn which boot of the host this is: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// restore takes up the grants of an earlier life of the daemon, once the sessions
// are known. Those that ended meanwhile end for the log too, with the time that
// they really ended at. adopted tells whether the kernel's tables are those of
// that life.
func (g *grants) restore(adopted bool, find func(id string) (*session, bool)) error {
	var stored storedGrants
	if err := g.store.read(grantsFile, &stored); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	known := map[uint32]bpf.Grant{}
	var lost, over, revoked, orphaned, living []*grant
	var events []audit.Event
	g.remember(stored)
	g.metrics.Grants.Set(float64(len(stored.Grants)))
	for _, x := range stored.Grants {
		s, ok := find(x.Session)
		switch {
		case stored.Boot != g.bootID:
			events = append(events, g.closeEarlier(x))
			continue
		case !ok || !g.live(s) || s.group == nil:
			orphaned = append(orphaned, x)
			continue
		}
		state, there, err := g.inKernel(x, adopted)
		if err != nil {
			return err
		}
		if !there {
			lost = append(lost, x)
			continue
		}
		known[x.Number] = x.kernel(s.Number, s.group.ID)
		g.noteUses(x)
		switch {
		case state.Revoked:
			revoked = append(revoked, x)
		case x.Deadline <= g.boot():
			over = append(over, x)
		default:
			living = append(living, x)
		}
	}
	if err := g.kernel.RestoreGrants(known); err != nil {
		return err
	}
	g.end(over, "", "")
	g.end(revoked, endRevoked, "")
	g.end(lost, endLost, "")
	for _, x := range orphaned {
		events = append(events, g.endOrphan(x))
	}
	for _, x := range living {
		events = append(events, x.event(grantGoesOn, x.fields()))
	}
	g.tell(events...)
	g.rearm()
	return nil
}

// remember takes all stored grants in, before any is saved again or an event of
// one is read; g.mu is held.
func (g *grants) remember(stored storedGrants) {
	g.named.Lock()
	defer g.named.Unlock()
	for _, x := range stored.Grants {
		g.begun(x)
		if x.Number != 0 && stored.Boot == g.bootID {
			g.number(x)
		}
	}
}

// inKernel tells whether the kernel has a grant as it was written down.
func (g *grants) inKernel(x *grant, adopted bool) (state bpf.GrantState, ok bool, err error) {
	if !adopted || x.Number == 0 {
		return state, false, nil
	}
	state, err = g.kernel.GrantState(x.Number)
	return state, err == nil && (state.Revoked || state.Deadline == x.Deadline), err
}

// endOrphan ends the grant of a session that ended while no daemon was there.
// When that was is not known, but a deadline that has passed is.
func (g *grants) endOrphan(x *grant) audit.Event {
	how := endSession
	if x.Deadline <= g.boot() {
		how = ""
	}
	g.close(x, how, g.now())
	return g.settle(x, "", cutDone{})
}

// closeEarlier ends a grant of an earlier boot of the host, which no session
// outlived.
func (g *grants) closeEarlier(x *grant) audit.Event {
	up := g.now().Add(-g.boot())
	how, at := endSession, up
	if expiry := x.Issued.Add(x.TTL); expiry.Before(up) {
		how, at = endExpired, expiry
	}
	g.close(x, how, at.Round(time.Millisecond))
	return g.settle(x, "", cutDone{})
}
