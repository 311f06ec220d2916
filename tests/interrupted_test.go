// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
)

// testInterrupted puts the host into states that a kill leaves between two steps,
// and starts the daemon there.
func testInterrupted(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	brief := h.prompt(t, "worker")
	h.stop(t, syscall.SIGKILL)
	running, life := h.readState(t, "sessions"), h.readState(t, "life")
	brief.end()

	// A session that ended, one that was being started, a change that is not in the log yet.
	ghost := h.halfSession(t)
	policies := h.readState(t, "policies")
	policies["Record"].(map[string]any)["id"] = "change-1"
	h.writeState(t, "policies", policies)
	h.start(t)
	h.checkGhost(t, ghost)
	h.checkEnded(t, brief, "change-1")

	// Killed before it could write down that the session has ended.
	h.stop(t, syscall.SIGKILL)
	h.writeState(t, "sessions", running)
	h.writeState(t, "life", life)
	h.start(t)
	h.checkEnded(t, brief, "change-1")
	h.run(t, "worker", "/bin/true").ok(t)

	// Killed between writing policies down and finding that they don't fit.
	h.stop(t, syscall.SIGKILL)
	h.writeState(t, "policies", tooBig(t, h.readState(t, "policies")))
	h.start(t)
	p := h.prompt(t, "worker")
	p.confined(t, "after an apply that did not fit")
	if list := h.bailiff(t, "policy", "show", "simple").ok(t).stdout; strings.Contains(list, "10.0.") {
		t.Error("policies are shown that are not in force")
	}
	if left, err := filepath.Glob(h.state + "/*.new-*"); len(left) > 0 || err != nil {
		t.Errorf("half-written files: %v, %v", left, err)
	}
}

func (h *host) readState(t *testing.T, name string) (v map[string]any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.state, name))
	must(t, err)
	must(t, json.Unmarshal(data, &v))
	return v
}

func (h *host) writeState(t *testing.T, name string, v map[string]any) {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(h.state, name), data, 0o600))
	must(t, os.WriteFile(filepath.Join(h.state, name+".new-123"), data[:len(data)/2], 0o600))
}

// halfSession does what the start of a session does first: a cgroup, and its entry
// in the kernel's table. One such is written down, one is not.
func (h *host) halfSession(t *testing.T) (cgroups []string) {
	t.Helper()
	parent := h.sessionsDirectory
	e, err := bpf.Load(bpf.Options{PinDir: "/sys/fs/bpf/" + filepath.Base(h.dir), Cgroup: parent, Level: 2, Full: h.full})
	must(t, err)
	defer e.Close()
	sessions := h.readState(t, "sessions")
	list, _ := sessions["Sessions"].([]any)
	for i := range 2 {
		id := fmt.Sprintf("s-ghost%d", i)
		dir := filepath.Join(parent, id)
		must(t, os.Mkdir(dir, 0o755))
		var st unix.Stat_t
		must(t, unix.Stat(dir, &st))
		must(t, e.AddSession(bpf.Session{ID: uint64(1000 + i), Agent: 1, Cgroup: st.Ino}))
		if i == 0 {
			list = append(list, map[string]any{"ID": id, "Number": 1000, "Agent": "spiffe://local/agent/worker", "Started": "2026-01-01T00:00:00Z"})
		}
		cgroups = append(cgroups, dir)
	}
	sessions["Sessions"] = list
	h.writeState(t, "sessions", sessions)
	return cgroups
}

func (h *host) checkGhost(t *testing.T, cgroups []string) {
	t.Helper()
	for _, dir := range cgroups {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stays: %v", dir, err)
		}
	}
	if n := h.metric(t, `bailiff_map_entries{map="sessions"}`); n != 1 {
		t.Errorf("%v sessions are in the kernel's table, the canary among them", n)
	}
	if list := h.bailiff(t, "sessions", "list", "--all").ok(t).stdout; strings.Contains(list, "ghost") {
		t.Errorf("a session that never ran is listed:\n%s", list)
	}
	for _, ev := range h.events(t) {
		if strings.Contains(ev.Session, "ghost") {
			t.Errorf("the log tells of a session that never ran: %+v", ev)
		}
	}
}

// checkEnded: the session's beginning and end are in the log once, and the change.
func (h *host) checkEnded(t *testing.T, p *prompt, change string) {
	t.Helper()
	seen := map[string]int{}
	for _, ev := range h.events(t) {
		switch {
		case ev.Session == p.id:
			seen[ev.Message]++
		case ev.ID == change:
			seen["change"]++
		}
	}
	for _, what := range []string{"session started", "session ended", "change"} {
		if seen[what] != 1 {
			t.Errorf("%s: %d records of it are in the log", what, seen[what])
		}
	}
}

// tooBig is the file of policies while some are being applied that don't fit.
func tooBig(t *testing.T, now map[string]any) map[string]any {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n  network:\n")
	for i := range 20000 {
		fmt.Fprintf(&b, "    - {allow: connect, ip: 10.0.%d.%d, ports: [%d-65534]}\n", i/250, i%250, i+1)
	}
	documents := now["Documents"].([]any)
	big := map[string]any{}
	for key, value := range documents[0].(map[string]any) {
		big[key] = value
	}
	big["Text"] = big["Text"].(string) + b.String()
	big["AcceptDegraded"] = true
	return map[string]any{
		"Since": now["Since"].(float64) + 1000, "Documents": []any{big}, "Builtin": now["Builtin"],
		"Before": map[string]any{"Since": now["Since"], "Builtin": now["Builtin"], "Without": []any{big["Name"]}, "With": documents},
	}
}
