// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/audit"
)

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// issued is a grant with the time of the boot clock that it has ended at.
type issued struct {
	id  string
	end time.Duration
}

// issue issues a grant to a session.
func (h *host) issue(t *testing.T, session string, ttl time.Duration, flags ...string) issued {
	t.Helper()
	for i := range flags {
		flags[i] = h.expand(flags[i])
	}
	out := h.bailiff(t, append([]string{"grants", "issue", session, "--ttl", ttl.String(), "-o", "json"}, flags...)...).ok(t)
	var answer struct{ Grant struct{ ID string } }
	must(t, json.Unmarshal([]byte(out.stdout), &answer))
	return issued{answer.Grant.ID, bootTime() + ttl}
}

// over waits until a grant has ended, and a little longer.
func (g issued) over() { time.Sleep(g.end - bootTime() + 100*time.Millisecond) }

// stateOf returns what is listed of a grant.
func (h *host) stateOf(t *testing.T, id string) string {
	t.Helper()
	var answer struct{ Grants []struct{ ID, State string } }
	must(t, json.Unmarshal([]byte(h.bailiff(t, "grants", "list", "--all", "-o", "json").ok(t).stdout), &answer))
	for _, g := range answer.Grants {
		if g.ID == id {
			return g.State
		}
	}
	return "unknown"
}

// lines returns what the log tells of a grant, without what it allowed.
func (h *host) lines(t *testing.T, id string) (lines []audit.Event) {
	t.Helper()
	for _, ev := range h.events(t) {
		if ev.Grant == id && ev.Kind == audit.Grant {
			lines = append(lines, ev)
		}
	}
	return lines
}

// endedAs fails the test unless the log tells once, and rightly, how a grant ended.
func (h *host) endedAs(t *testing.T, g issued, how string) {
	t.Helper()
	var last audit.Event
	eventually(10*time.Second, func() bool {
		lines := h.lines(t, g.id)
		if len(lines) > 0 {
			last = lines[len(lines)-1]
		}
		return last.Message == "grant ended"
	})
	ended := 0
	for _, ev := range h.lines(t, g.id) {
		if ev.Message == "grant ended" {
			ended++
		}
	}
	if last.Message != "grant ended" || last.Fields["how"] != how || ended != 1 {
		t.Errorf("the log tells %d times that the grant ended, last %+v, want once, %s", ended, last, how)
	}
	at, err := time.Parse(time.RFC3339Nano, last.Fields["ended"])
	must(t, err)
	// When it was answered is a little later than when it was issued.
	if off := time.Until(at) - (g.end - bootTime()); how == "expired" && (off > time.Second || off < -5*time.Second) {
		t.Errorf("it is said to have ended %v after its deadline", off)
	}
}
