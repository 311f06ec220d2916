// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxProcesses is what TestSystem's daemon lets all sessions have; one has half.
const maxProcesses = 240

// testProcesses has a session fork without end: others, and the daemon, go on.
func testProcesses(t *testing.T, h *host) {
	controllers, err := os.ReadFile(filepath.Join(h.cgroup(t), "cgroup.controllers"))
	must(t, err)
	can := slices.Contains(strings.Fields(string(controllers)), "pids")
	for _, p := range h.status(t)["probes"].([]any) {
		if probe := p.(map[string]any); probe["name"] == "process limit" && (probe["ok"] == true) != can {
			t.Errorf("the hierarchy has the controller: %v; bailiffd says %v", can, probe)
		}
	}
	if !can {
		t.Skip("SKIP-REASON: cgroup: this host's cgroup v2 hierarchy has no pids controller")
	}
	h.enforce(t, simplePolicy)
	p := h.prompt(t, "worker")
	if code := p.do(t, `sh -c 'i=0; while [ $i -lt 150 ]; do sleep 120 & i=$((i+1)); done'`); code != "2" {
		t.Errorf("a session that forks 150 times: status %s, want that of a shell that cannot fork", code)
	}
	other := h.prompt(t, "worker")
	other.confined(t, "while another session forks")
	h.bailiff(t, "policy", "list").ok(t)
	h.bailiff(t, "sessions", "stop", p.id).ok(t)
	p.end()
	if other.end() != 0 {
		t.Error("the other session did not end well")
	}
}
