// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

const grantsPolicy = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: granted}
spec:
  subject: {spiffeID: granted}
  presets: [runtime, shell, python]
  files:
    - {path: %WORK%, allow: [read, write, create, delete, execute]}
    - {path: %DIR%/vault/sealed, deny: [read]}
  network:
    - {deny: connect, ip: 127.0.0.9}
    - {allow: connect, ip: 127.0.0.8}
`

// onTheBasicTier is grantsPolicy without what Landlock cannot do.
func onTheBasicTier(text string) string {
	return strings.Replace(text, "    - {path: %DIR%/vault/sealed, deny: [read]}\n", "", 1)
}

// brief is how long a grant lasts that is waited for: long enough to do under it
// what a test does.
func brief() time.Duration {
	if kerneltest.InVM() {
		return 8 * time.Second
	}
	return 5 * time.Second
}

// slack is by how much later than the deadline a session may say that it received
// something: it looks at the clock a little later than the kernel did.
func slack() time.Duration {
	if kerneltest.InVM() {
		return 300 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// testGrants gives sessions access that ends, with the daemon there and without.
func testGrants(t *testing.T, h *host) {
	kerneltest.RequireTool(t, "python3")
	write(t, filepath.Join(h.dir, "vault/data"), "treasure\n")
	write(t, filepath.Join(h.dir, "vault/sealed"), "seal\n")
	policy := grantsPolicy
	if !h.full {
		policy = onTheBasicTier(policy)
	}
	h.enforce(t, policy)
	a := h.agent(t, "granted")
	t.Run("refused", func(t *testing.T) { testRefusedGrants(t, h, a) })
	t.Run("files", func(t *testing.T) { testFileGrants(t, h, a) })
	t.Run("mapped", func(t *testing.T) { testMappedGrants(t, h) })
	t.Run("network", func(t *testing.T) { testNetworkGrants(t, h, a) })
	t.Run("without a daemon", func(t *testing.T) { testGrantsAlone(t, h, a) })
	t.Run("killed while issuing", func(t *testing.T) { testKilledIssuing(t, h, a) })
	a.end()
}

func testRefusedGrants(t *testing.T, h *host, a *agent) {
	issue := func(session string, flags ...string) result {
		return h.bailiff(t, append([]string{"grants", "issue", session, "--ttl", "1m"}, flags...)...)
	}
	issue("s-nobody", "--connect", "10.0.0.1:80").ended(t, 1).says(t, "there is no session")
	issue(a.id, "--connect", "127.0.0.9:80").ended(t, 1).says(t, "granted/network/0 denies it")
	issue(a.id, "--connect", "db.example.org:80").ended(t, 2).says(t, "it is a host name")
	h.bailiff(t, "grants", "issue", a.id, "--ttl", "25h", "--connect", "10.0.0.1:80").ended(t, 2).says(t, "at most 24h0m0s")
	if h.full {
		issue(a.id, "--file", h.expand("%DIR%/vault/sealed:read")).ended(t, 1).says(t, "granted/files/1 denies it")
	} else {
		issue(a.id, "--file", h.expand("%DIR%/vault:read")).ended(t, 1).says(t, "basic tier", "Landlock")
	}
	brief := h.run(t, "granted", "/bin/bash", "-c", `echo "$BAILIFF_SESSION"`).ok(t)
	if !eventually(10*time.Second, func() bool {
		return strings.Contains(issue(strings.TrimSpace(brief.stdout), "--connect", "10.0.0.1:80").stderr, "has ended")
	}) {
		t.Error("a session that has ended gets grants")
	}
	noted := issue(a.id, "--connect", "127.0.0.8:80").ok(t).says(t, "allowed without the grant")
	h.bailiff(t, "grants", "revoke", strings.Fields(noted.stdout)[1]).ok(t)
	h.bailiff(t, "grants", "revoke", strings.Fields(noted.stdout)[1]).ended(t, 1).says(t, "is over: revoked")
	if left := h.bailiff(t, "grants", "list").ok(t).stdout; left != "" {
		t.Errorf("there are grants:\n%s", left)
	}
}

func testFileGrants(t *testing.T, h *host, a *agent) {
	if !h.full {
		t.Skip(kerneltest.SkipReason + "full tier: Landlock cannot be widened")
	}
	a.answers(t, `opened("early", "%DIR%/vault/data")`, "EACCES")
	g := h.issue(t, a.id, brief(), "--file", "%DIR%/vault:read")
	a.answers(t, `opened("fd", "%DIR%/vault/data")`, "ok")
	a.answers(t, `read("fd")`, "treasure")
	a.answers(t, `opened("w", "%DIR%/vault/data", os.O_WRONLY)`, "EACCES")
	a.answers(t, `opened("s", "%DIR%/vault/sealed")`, "EACCES")
	if left := g.end - bootTime(); left < 0 {
		t.Fatalf("this took longer than the grant lasts: %v", left)
	}
	g.over()
	a.answers(t, `read("fd")`, "EACCES")
	a.answers(t, `opened("late", "%DIR%/vault/data")`, "EACCES")
	h.endedAs(t, g, "expired")
	a.answers(t, `read("fd")`, "EACCES") // also with nothing left in the tables

	g = h.issue(t, a.id, time.Minute, "--file", "%DIR%/vault/data:read", "--uses", "2")
	a.answers(t, `opened("1", "%DIR%/vault/data")`, "ok")
	a.answers(t, `opened("2", "%DIR%/vault/data")`, "ok")
	a.answers(t, `opened("3", "%DIR%/vault/data")`, "EACCES")
	a.answers(t, `read("2")`, "treasure")
	if s := h.stateOf(t, g.id); s != "used up" {
		t.Errorf("the grant is said to be %s", s)
	}
	h.bailiff(t, "grants", "revoke", g.id).ok(t)
	a.answers(t, `read("2")`, "EACCES")
	h.endedAs(t, g, "revoked")
	allowed := 0
	eventually(10*time.Second, func() bool { // the second is a repeat, told within two seconds
		allowed = 0
		for _, ev := range h.events(t) {
			if ev.Kind == audit.Action && ev.Grant == g.id && ev.Verdict == "allow" && ev.Operation == "open" {
				allowed += int(max(ev.Count, 1))
			}
		}
		return allowed >= 2
	})
	if allowed != 2 {
		t.Errorf("the log tells of %d opens under the grant, not 2", allowed)
	}
}

// testMappedGrants has a session killed that has mapped a file, and one that has
// only read it live on.
func testMappedGrants(t *testing.T, h *host) {
	if !h.full {
		t.Skip(kerneltest.SkipReason + "full tier: Landlock cannot be widened")
	}
	maps, reads := h.agent(t, "granted"), h.agent(t, "granted")
	for _, a := range []*agent{maps, reads} {
		h.issue(t, a.id, time.Minute, "--file", "%DIR%/vault:read", "--kill-mapped")
	}
	maps.answers(t, `mapped("%DIR%/vault/data")`, "trea")
	reads.answers(t, `opened("fd", "%DIR%/vault/data")`, "ok")
	for _, a := range []*agent{maps, reads} {
		h.bailiff(t, "grants", "revoke", "--session", a.id).ok(t)
	}
	ended := make(chan int, 1)
	go func() { ended <- maps.end() }()
	select {
	case code := <-ended:
		if code != 128+int(syscall.SIGKILL) && code != -1 {
			t.Errorf("the session that had mapped a file ended with status %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Error("the session that had mapped a file runs on")
	}
	reads.answers(t, `read("fd")`, "EACCES")
	if code := reads.end(); code != 0 {
		t.Errorf("the session that had mapped nothing ended with status %d", code)
	}
}

// silent fails the test unless a pump got something, and nothing after a deadline.
func silent(t *testing.T, a *agent, key string, end time.Duration) {
	t.Helper()
	p := a.pumped(t, key)
	if p.bytes == 0 || p.last > end+slack() {
		t.Errorf("%s: %d bytes came, the last %v after the deadline", key, p.bytes, p.last-end)
	}
	ended := "it waits"
	if p.end != 0 {
		ended = fmt.Sprintf("it ended by %s %v after it", p.error, p.end-end)
	}
	t.Logf("%s: %d bytes came, the last %v before the deadline; %s", key, p.bytes, end-p.last, ended)
}

func testNetworkGrants(t *testing.T, h *host, a *agent) {
	stream, stream6, datagrams := newPusher(t, "tcp", "127.0.0.2"), newPusher(t, "tcp", "::1"), newPusher(t, "udp", "127.0.0.2")
	kept := newPusher(t, "tcp", "127.0.0.3")
	connect := func(key string, p *pusher, kind string) string {
		return fmt.Sprintf("connected(%q, %q, %d, socket.SOCK_%s)", key, p.host, p.port, kind)
	}
	for _, p := range []*pusher{stream, stream6, kept} {
		a.answers(t, connect("early", p, "STREAM"), "EPERM", "EACCES")
	}
	lasting := h.issue(t, a.id, time.Hour, "--connect", kept.flag())
	g := h.issue(t, a.id, brief(), "--connect", stream.flag(), "--connect", stream6.flag(), "--connect", "127.0.0.3:*")
	u := h.issue(t, a.id, brief(), "--connect", datagrams.flag(), "--protocol", "udp")
	for key, p := range map[string]*pusher{"tcp": stream, "tcp6": stream6, "kept": kept} {
		a.answers(t, connect(key, p, "STREAM"), "ok")
		a.answers(t, fmt.Sprintf("pump(%q)", key), "ok")
	}
	a.answers(t, connect("udp", datagrams, "DGRAM"), "ok")
	a.answers(t, `sent("udp", "hello")`, "ok")
	a.answers(t, `pump("udp")`, "ok")
	g.over()
	u.over()
	if !eventually(2*time.Second, func() bool {
		return a.pumped(t, "tcp").end != 0 && a.pumped(t, "tcp6").end != 0 && a.pumped(t, "udp").end != 0
	}) {
		t.Error("a receive goes on waiting")
	}
	for key, end := range map[string]time.Duration{"tcp": g.end, "tcp6": g.end, "udp": u.end} {
		silent(t, a, key, end)
		if p := a.pumped(t, key); p.error != "ECONNABORTED" || p.end > end+time.Second+slack() {
			t.Errorf("%s: a receive ended by %s %v after the deadline", key, p.error, p.end-end)
		}
	}
	if !eventually(5*time.Second, func() bool { return stream.resets.Load() == 1 && stream6.resets.Load() == 1 }) {
		t.Errorf("the servers saw %d and %d resets", stream.resets.Load(), stream6.resets.Load())
	}
	a.answers(t, connect("late", stream, "STREAM"), "EPERM", "EACCES")
	a.answers(t, `sent("udp", "hello")`, "EPERM", "EACCES", "EDESTADDRREQ")
	before := a.pumped(t, "kept").bytes
	if !eventually(5*time.Second, func() bool { return a.pumped(t, "kept").bytes > before }) {
		t.Error("a connection that another grant allows ended too")
	}
	h.endedAs(t, g, "expired")
	h.endedAs(t, u, "expired")
	h.bailiff(t, "grants", "revoke", lasting.id).ok(t)
	if !eventually(2*time.Second, func() bool { return a.pumped(t, "kept").error == "ECONNABORTED" }) {
		t.Error("revoked, and a receive goes on waiting")
	}
	h.endedAs(t, lasting, "revoked")

	once := h.issue(t, a.id, time.Minute, "--connect", stream.flag(), "--uses", "1")
	a.answers(t, connect("once", stream, "STREAM"), "ok")
	a.answers(t, connect("twice", stream, "STREAM"), "EPERM", "EACCES")
	if s := h.stateOf(t, once.id); s != "used up" {
		t.Errorf("the grant is said to be %s", s)
	}
	h.bailiff(t, "grants", "revoke", "--session", a.id).ok(t)
}
