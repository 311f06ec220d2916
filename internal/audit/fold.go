// SPDX-License-Identifier: Apache-2.0

package audit

import "time"

const (
	foldQuiet = time.Second     // without a repeat, after which the number is told
	foldTell  = 5 * time.Second // at most between two numbers, while it goes on
)

// foldKey is what two events have in common that are told as one.
type foldKey struct {
	agent, session, verdict, operation, object, rule string
}

// fold counts the repeats of the event that was printed last.
type fold struct {
	key     foldKey
	active  bool
	repeats uint64
	told    time.Time // when something was printed
	latest  time.Time // of the latest repeat
}

func foldKeyOf(ev *Event) foldKey {
	return foldKey{ev.Agent, ev.Session, ev.Verdict, ev.Operation, objectText(ev), ev.Rule + "\x00" + ev.Reason + "\x00" + ev.Grant}
}

// repeated says whether ev only repeats the event before, and counts it if so.
func (f *fold) repeated(ev *Event, now time.Time) bool {
	if ev.Kind != Action {
		*f = fold{}
		return false
	}
	key := foldKeyOf(ev)
	if f.active && key == f.key {
		f.repeats += occurrences(ev)
		f.latest = now
		return true
	}
	*f = fold{key: key, active: true, told: now}
	return false
}

// due says whether the number of repeats should be told now.
func (f *fold) due(now time.Time) bool {
	return f.repeats > 0 && (now.Sub(f.latest) >= foldQuiet || now.Sub(f.told) >= foldTell)
}

// take returns the repeats that were not told yet.
func (f *fold) take(now time.Time) uint64 {
	n := f.repeats
	f.repeats, f.told = 0, now
	return n
}
