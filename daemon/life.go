// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// life is the file "life": up to where the log is accounted for in the other
// files, in the ring and here. What a daemon does that is killed is behind that in
// the log, or not in it: the next one looks there for what it need not do again.
type life struct {
	Time    time.Time         // when it was written: every heartbeat, and at the end
	Boot    string            // of the host
	Ring    string            // of the kernel's events
	Log     audit.Mark        // what is before it is accounted for
	Dropped map[string]uint64 // events that found this ring full, as far as the log tells of them before the mark, by agent
	Change  string            // id of the last record before the mark that policies changed
	Stopped bool              // it was the last: the daemon ended as it was told to
}

const (
	lifeFile  = "life"
	heartbeat = 5 * time.Second // at most so much of a life is unknown to the next
)

// earlier is what a daemon finds of the one before.
type earlier struct {
	life
	tail    audit.Tail // of the log, behind the life's mark
	waiting int        // records in the ring
}

// recall looks what the daemon before has left in the log and in the ring, and
// takes out of the ring what is in the log. Nothing is written before.
func (d *Daemon) recall() (err error) {
	e := &d.earlier
	if err := d.store.read(lifeFile, &e.life); err != nil {
		// It is not synced: after a power failure it may be torn, and nothing is lost that was not anyway.
		d.log.Warn("what the daemon did last is looked up in the whole log", "error", err)
		e.life = life{}
	}
	if e.tail, err = audit.ReadTail(audit.Directory(d.o.Config.StateDir), e.Log); err != nil {
		return fmt.Errorf("look for the end of the log: %w", err)
	}
	var told uint64
	if e.tail.Ring.ID == d.reader.Ring() {
		told = e.tail.Ring.End
	}
	if e.waiting, err = d.reader.Resume(told); err != nil {
		return err
	}
	d.dropped, d.accounted = map[string]uint64{}, map[string]uint64{}
	if e.Ring != d.reader.Ring() {
		return nil
	}
	maps.Copy(d.dropped, e.Dropped)
	for _, ev := range e.tail.Events {
		if n, ok := ev.LostInKernel(); ok {
			d.dropped[ev.Agent] += n
		}
	}
	maps.Copy(d.accounted, d.dropped)
	return nil
}

// has tells whether the log's tail has a record of a session.
func (e *earlier) has(session, message string) bool {
	return slices.ContainsFunc(e.tail.Events, func(ev audit.Event) bool {
		return ev.Kind == audit.Session && ev.Session == session && ev.Message == message
	})
}

// hasGrant is the same about a grant.
func (e *earlier) hasGrant(id, message string) bool {
	return slices.ContainsFunc(e.tail.Events, func(ev audit.Event) bool {
		return ev.Kind == audit.Grant && ev.Grant == id && ev.Message == message
	})
}

// recorded tells whether the log has a record that policies changed.
func (e *earlier) recorded(id string) bool {
	return id == e.Change || slices.ContainsFunc(e.tail.Events, func(ev audit.Event) bool { return ev.ID == id })
}

// recordGap tells how long no daemon was there, and what happened meanwhile.
func (d *Daemon) recordGap() error {
	e := &d.earlier
	from := e.Time
	if e.tail.Last.After(from) {
		from = e.tail.Last
	}
	if from.IsZero() {
		return nil // there never was one
	}
	dropped, err := d.untold()
	if err != nil {
		return err
	}
	var sum uint64
	for _, n := range dropped {
		sum += n
	}
	fields := map[string]string{
		"from": from.UTC().Format(time.RFC3339Nano), "to": d.now().UTC().Format(time.RFC3339Nano), "previous": "killed",
		"waiting": strconv.Itoa(e.waiting), "dropped": strconv.FormatUint(sum, 10),
	}
	if e.Stopped {
		fields["previous"] = "stopped"
	}
	if e.Boot != "" && e.Boot != bootOf(d.reader.Ring()) {
		fields["rebooted"] = "true"
	}
	d.audit.Write(audit.Event{Kind: audit.System, Message: "daemon gap", Fields: fields})
	d.log.Info("no daemon was there", "since", from, "previous", fields["previous"], "waiting", e.waiting, "dropped", sum)
	return nil
}

// bootOf returns what of a ring's name is the boot's.
func bootOf(ring string) string {
	boot, _, _ := strings.Cut(ring, ".")
	return boot
}

// untold returns how many events were lost in the kernel that audit was not told
// of, by agent.
func (d *Daemon) untold() (map[string]uint64, error) {
	_, counts, err := d.kernel.Counts()
	if err != nil {
		return nil, err
	}
	lost := map[string]uint64{}
	for agent, n := range counts {
		if n > d.dropped[agent] && !ownAgent(agent) {
			lost[agent] = n - d.dropped[agent]
		}
	}
	return lost, nil
}

// followDrops tells the log of events that found the kernel's ring full, those
// first that no daemon told of.
func (d *Daemon) followDrops(ctx context.Context) {
	for tick := time.NewTicker(time.Second); ; {
		if err := d.kernel.FlushFolds(0); err != nil {
			d.log.Error("repeated acts stay untold", "error", err)
		}
		lost, err := d.untold()
		if err != nil {
			d.log.Error("the counts cannot be read", "error", err)
		}
		for agent, n := range lost {
			d.dropped[agent] += n
			d.audit.Lost(audit.Loss{Agent: agent, Stage: audit.InKernel, Count: n})
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// beat writes the life down again and again.
func (d *Daemon) beat(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.checkpoint(false)
		if err != nil && !failing {
			d.log.Error("a daemon that is killed now looks up more of the log when it returns", "error", err)
		}
		failing = err != nil
	}
}

// checkpoint makes everything that is in the log by now accounted for.
func (d *Daemon) checkpoint(stopped bool) error {
	d.grants.retry() // before the lock: whoever records of grants holds theirs
	d.recording.Lock()
	defer d.recording.Unlock()
	mark, err := d.audit.Mark()
	if err != nil {
		return err
	}
	if d.unsaved.Load() {
		if err := d.saveSessions(); err != nil {
			return err
		}
	}
	if d.grants.unsaved.Load() {
		return errors.New("the grants could not be written down")
	}
	now := life{
		Time: d.now(), Boot: bootOf(d.reader.Ring()), Ring: d.reader.Ring(), Log: mark,
		Dropped: maps.Clone(d.accounted), Change: d.change, Stopped: stopped,
	}
	for agent, n := range mark.Told {
		now.Dropped[agent] += n
	}
	return d.store.note(lifeFile, now)
}

// record writes an event that must not be lost or doubled by a kill: it is in the
// log when record returns, and then saved must make it accounted for.
func (d *Daemon) record(ev audit.Event, saved func()) { d.recordAll([]audit.Event{ev}, saved) }

// recordAll does so with several events at once.
func (d *Daemon) recordAll(events []audit.Event, saved func()) {
	d.recording.RLock()
	defer d.recording.RUnlock()
	for _, ev := range events {
		d.audit.Write(ev)
	}
	d.audit.Flush()
	saved()
}
