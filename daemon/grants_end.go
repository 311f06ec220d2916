// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// sweep ends the grants whose deadline has passed, and notes those that have
// been used up.
func (g *grants) sweep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var over []*grant
	for _, x := range g.all() {
		g.noteUses(x)
		if x.Deadline <= g.boot() {
			over = append(over, x)
		}
	}
	g.end(over, "", "")
	g.rearm()
}

// noteUses tells the log once that a grant has no use left. What is open under
// it stays so until its deadline.
func (g *grants) noteUses(x *grant) {
	if x.Uses == 0 || x.UsedUp {
		return
	}
	state, err := g.kernel.GrantState(x.Number)
	if err != nil {
		g.log.Error("a grant cannot be looked at", "grant", x.ID, "error", err)
		return
	}
	if state.Uses != 0 || state.Revoked {
		return
	}
	x.UsedUp = true
	g.tell(x.event(grantUsedUp, map[string]string{"uses": fmt.Sprint(x.Uses)}))
}

// tell writes to the log, and what the grants are now to the disk.
func (g *grants) tell(events ...audit.Event) {
	events = slices.DeleteFunc(events, func(ev audit.Event) bool { return g.told(ev.Grant, ev.Message) })
	g.record(events, g.saved)
}

// revoke ends grants now, and returns those that had not ended.
func (g *grants) revoke(list []*grant, by string) []*grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	list = slices.DeleteFunc(slices.Clone(list), func(x *grant) bool { return !x.Ended.IsZero() })
	g.end(list, endRevoked, by)
	g.rearm()
	return list
}

// endSession ends the grants of a session that has ended.
func (g *grants) endSession(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end(slices.DeleteFunc(g.all(), func(x *grant) bool { return x.Session != id }), endSession, "")
	g.rearm()
}

// end ends grants; how is "" where it was their deadline. g.mu is held. That
// something of it fails is logged: a grant that is over stays over.
func (g *grants) end(list []*grant, how, by string) {
	if len(list) == 0 {
		return
	}
	for _, x := range list {
		if how == endRevoked || how == endSession {
			if err := g.kernel.Revoke(x.Number); err != nil {
				g.log.Error("a grant could not be revoked in the kernel", "grant", x.ID, "error", err)
			}
		}
		g.close(x, how, g.now())
	}
	done := map[string]cutDone{}
	if how != endSession {
		done = g.cutAll(list)
	}
	g.drain()
	var events []audit.Event
	for _, x := range list {
		events = append(events, g.settle(x, by, done[x.Session]))
	}
	g.tell(events...)
	for _, x := range list {
		if err := g.kernel.Forget(x.Number); err != nil {
			g.log.Error("a grant that is over stays in the kernel's tables", "grant", x.ID, "error", err)
		}
	}
	g.forgetOld()
}

// close marks a grant as ended at a time, or at its deadline.
func (g *grants) close(x *grant, how string, at time.Time) {
	if x.How, x.Ended = how, at; how == "" {
		if x.How = endExpired; x.UsedUp {
			x.How = endUsedUp
		}
		x.Ended = g.now().Add(x.Deadline - g.boot())
	}
	g.over(x)
	g.ended = append(g.ended, x.ID)
}

// cutAll cuts off what is open under grants that have ended.
func (g *grants) cutAll(over []*grant) map[string]cutDone {
	done := map[string]cutDone{}
	for _, x := range over {
		if _, seen := done[x.Session]; seen {
			continue
		}
		of := func(y *grant) bool { return y.Session != x.Session }
		c := cutting{session: x.Session, over: slices.DeleteFunc(slices.Clone(over), of), live: slices.DeleteFunc(g.all(), of)}
		result := g.cut(c)
		if result.err != nil {
			g.log.Error("not all that was open under a grant could be ended; the kernel lets nothing pass", "session", x.Session, "error", result.err)
		}
		done[x.Session] = result
	}
	return done
}

// settle counts a grant that has ended, and returns the record of that.
func (g *grants) settle(x *grant, by string, done cutDone) audit.Event {
	fields := map[string]string{
		"how": x.How, "ended": x.Ended.UTC().Format(time.RFC3339Nano), "resources": x.resources(),
	}
	if by != "" {
		fields["by"] = by
	}
	if done.sockets > 0 {
		fields["sockets_destroyed"] = fmt.Sprint(done.sockets)
	}
	if done.killed {
		fields["session_killed"] = "it had mapped a file of the grant"
	}
	if done.err != nil {
		fields["left_open"] = done.err.Error()
	}
	g.log.Info(grantEnded, "grant", x.ID, "session", x.Session, "how", x.How)
	g.metrics.GrantEnded(x.How)
	g.metrics.Grants.Dec()
	return x.event(grantEnded, fields)
}

// saved writes the grants down where nothing can be undone any more: after a
// failure it is tried again, see retry.
func (g *grants) saved() {
	if err := g.save(); err != nil {
		g.log.Error("the grants cannot be written down", "error", err)
	}
}

// forgetOld drops the oldest of the grants that ended.
func (g *grants) forgetOld() {
	for len(g.ended) > maxEndedGrants {
		x := g.byID[g.ended[0]]
		delete(g.byID, x.ID)
		g.ended = g.ended[1:]
		g.named.Lock()
		if g.byNumber[x.Number] = slices.DeleteFunc(g.byNumber[x.Number], func(y *grant) bool { return y == x }); len(g.byNumber[x.Number]) == 0 {
			delete(g.byNumber, x.Number)
		}
		g.named.Unlock()
	}
}

// sweepGrants ends grants at their deadlines until the timer is closed.
func (d *Daemon) sweepGrants() error {
	for {
		err := d.timer.wait()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for the deadlines of grants: %w", err)
		}
		d.grants.sweep()
	}
}

// armTimer sets when the next sweep is due.
func (d *Daemon) armTimer(at time.Duration) {
	if err := d.timer.set(at); err != nil && !errors.Is(err, os.ErrClosed) {
		d.log.Error("deadlines of grants are not watched; the kernel ends them all the same", "error", err)
	}
}
