// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// testGrantsAlone kills the daemon before the deadline.
func testGrantsAlone(t *testing.T, h *host, a *agent) {
	stream, datagrams := newPusher(t, "tcp", "127.0.0.2"), newPusher(t, "udp", "127.0.0.2")
	flags := []string{"--connect", stream.flag()}
	if h.full {
		flags = append(flags, "--file", "%DIR%/vault:read")
	}
	g := h.issue(t, a.id, brief(), flags...)
	u := h.issue(t, a.id, brief(), "--connect", datagrams.flag(), "--protocol", "udp")
	lasting := h.issue(t, a.id, time.Hour, "--connect", "127.0.0.4:80")
	h.stop(t, syscall.SIGKILL)
	a.answers(t, fmt.Sprintf(`connected("alone", %q, %d)`, stream.host, stream.port), "ok")
	a.answers(t, fmt.Sprintf(`connected("alone-udp", %q, %d, socket.SOCK_DGRAM)`, datagrams.host, datagrams.port), "ok")
	a.answers(t, `sent("alone-udp", "hello")`, "ok")
	a.answers(t, `pump("alone")`, "ok")
	a.answers(t, `pump("alone-udp")`, "ok")
	if h.full {
		a.answers(t, `opened("alone-fd", "%DIR%/vault/data")`, "ok")
		a.answers(t, `read("alone-fd")`, "treasure")
	}
	restore := moveClock(t)
	g.over()
	u.over()
	restore()
	if h.full {
		a.answers(t, `read("alone-fd")`, "EACCES")
		a.answers(t, `opened("alone-late", "%DIR%/vault/data")`, "EACCES")
	}
	a.answers(t, fmt.Sprintf(`connected("alone-late", %q, %d)`, stream.host, stream.port), "EPERM", "EACCES")
	time.Sleep(time.Second)
	silent(t, a, "alone", g.end)
	silent(t, a, "alone-udp", u.end)
	// Nobody is there to destroy the socket; what nobody answers ends it.
	if !eventually(time.Minute, func() bool { return a.pumped(t, "alone").end != 0 }) {
		t.Error("a receive goes on waiting for ever")
	}
	silent(t, a, "alone", g.end)
	h.start(t)
	h.endedAs(t, g, "expired")
	h.endedAs(t, u, "expired")
	if !eventually(5*time.Second, func() bool { return a.pumped(t, "alone-udp").end != 0 }) {
		t.Error("with the daemon back, a receive goes on waiting")
	}
	if s := h.stateOf(t, lasting.id); s != "live" {
		t.Errorf("a grant with an hour to go is %s", s)
	}
	if h.full {
		a.answers(t, `read("alone-fd")`, "EACCES")
	}
	h.bailiff(t, "grants", "revoke", lasting.id).ok(t)
}

// moveClock sets the wall clock a day back where that disturbs nobody, and
// returns what sets it right.
func moveClock(t *testing.T) (restore func()) {
	if !kerneltest.InVM() {
		return func() {}
	}
	const day = 24 * 60 * 60
	move := func(by int64) {
		var ts unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_REALTIME, &ts))
		ts.Sec += by
		must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
	}
	move(-day)
	return func() { move(day) }
}

// testKilledIssuing kills the daemon while grants are issued: what was answered
// must be there, and nothing that is not known.
func testKilledIssuing(t *testing.T, h *host, a *agent) {
	kills := 3
	if kerneltest.InVM() {
		kills = 1
	}
	for range kills {
		answered := make(chan []string)
		go func() {
			var ids []string
			for {
				out, err := h.command("grants", "issue", a.id, "--ttl", "1h", "--connect", fmt.Sprintf("10.9.0.%d:443", len(ids)+1)).Output()
				if err != nil {
					answered <- ids
					return
				}
				ids = append(ids, strings.Fields(string(out))[1])
			}
		}()
		time.Sleep(400 * time.Millisecond)
		h.stop(t, syscall.SIGKILL)
		ids := <-answered
		h.start(t)
		var answer struct{ Grants []struct{ ID, State string } }
		must(t, json.Unmarshal([]byte(h.bailiff(t, "grants", "list", "--session", a.id, "-o", "json").ok(t).stdout), &answer))
		live := map[string]bool{}
		for _, g := range answer.Grants {
			live[g.ID] = g.State == "live"
		}
		for _, id := range ids {
			if !live[id] {
				t.Errorf("%s was granted and is gone", id)
			}
		}
		if more := len(live) - len(ids); more > 1 {
			t.Errorf("%d grants live of which nobody heard", more)
		}
		if n := h.metric(t, "bailiff_map_entries{", `map="grants"`); n != float64(len(live)) {
			t.Errorf("the kernel has %v grants, the daemon %d", n, len(live))
		}
		t.Logf("killed after %d grants", len(ids))
		if len(live) > 0 {
			h.bailiff(t, "grants", "revoke", "--session", a.id).ok(t)
		}
	}
}
