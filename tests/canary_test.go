// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// noticed is how long it may take until enforcement that is gone is noticed.
const noticed = 10 * time.Second

// testCanary switches layers of enforcement off under the running daemon.
func testCanary(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	t.Run("quiet", func(t *testing.T) { testCanaryIsQuiet(t, h) })
	t.Run("replaced", func(t *testing.T) { testCanaryIsReplaced(t, h) })
	t.Run("ftrace", func(t *testing.T) { testFtrace(t, h) })
	t.Run("detached", func(t *testing.T) { testDetached(t, h) })
	t.Run("killed daemon", func(t *testing.T) { testCanaryDies(t, h) })
}

// layers returns which layers are live, by name.
func (h *host) layers(t *testing.T) map[string]bool {
	t.Helper()
	names := []string{"landlock", "cgroup_connect", "cgroup_egress"}
	if h.full {
		names = []string{"lsm_files", "lsm_network", "cgroup_connect", "cgroup_egress"}
	}
	found := map[string]bool{}
	for _, name := range names {
		found[name] = h.metric(t, "bailiff_enforcement_live{", `layer="`+name+`"`) == 1
	}
	if sum := h.metric(t, "bailiff_enforcement_live{"); int(sum) > len(names) {
		t.Errorf("%v layers are live, of %d", sum, len(names))
	}
	return found
}

// dead waits until these layers and no others are not live.
func (h *host) dead(t *testing.T, want ...string) {
	t.Helper()
	began := time.Now()
	var found map[string]bool
	if !eventually(noticed, func() bool {
		found = h.layers(t)
		n := 0
		for _, name := range want {
			if !found[name] {
				n++
			}
		}
		alive := 0
		for _, live := range found {
			if live {
				alive++
			}
		}
		return n == len(want) && alive == len(found)-len(want)
	}) {
		t.Fatalf("after %v %v should not be live, and all others: %v", noticed, want, found)
	}
	t.Logf("%v: after %v", found, time.Since(began).Round(10*time.Millisecond))
}

// canaryPID returns the canary's process, 0 while there is none.
func (h *host) canaryPID() int {
	data, _ := os.ReadFile(filepath.Join(h.canaryGroup, "cgroup.procs"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// records counts the log's entries of a message about a layer.
func (h *host) records(t *testing.T, message, layer string) (n int) {
	t.Helper()
	for _, ev := range h.events(t) {
		if ev.Kind == audit.System && ev.Message == message && ev.Fields["layer"] == layer {
			n++
		}
	}
	return n
}

// What the canary is denied is nobody's business, and nobody else can be it.
func testCanaryIsQuiet(t *testing.T, h *host) {
	h.dead(t)
	time.Sleep(4 * time.Second) // more than one round
	h.dead(t)
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d %s", code, body)
	}
	if sum := h.metric(t, "bailiff_canary_failures_total{"); sum != 0 {
		t.Errorf("%v failures are counted", sum)
	}
	if h.canaryPID() == 0 {
		t.Errorf("no process is in %s", h.canaryGroup)
	}
	for _, ev := range h.events(t) {
		if strings.HasPrefix(ev.Agent, "spiffe://bailiff.invalid/") || strings.HasPrefix(ev.Message, "enforcement is") {
			t.Errorf("the log tells of the canary: %+v", ev)
		}
	}
	_, metrics := h.get(t, "/metrics")
	list := h.bailiff(t, "sessions", "list", "--all", "-o", "json").ok(t).stdout + h.bailiff(t, "policy", "list", "-o", "json").ok(t).stdout
	if strings.Contains(metrics+list, "bailiff.invalid") {
		t.Errorf("the canary is listed or counted:\n%s\n%s", list, metrics)
	}
	h.bailiff(t, "run", "--agent", "spiffe://bailiff.invalid/canary", "--", "/bin/true").ended(t, 125).says(t, "Bailiff's own")
	h.apply(t, strings.Replace(simplePolicy, "spiffeID: worker", `spiffeID: "spiffe://bailiff.invalid/*"`, 1)).ended(t, 2).says(t, "Bailiff's own")
	if doctor := h.bailiff(t, "doctor").ok(t).stdout; !strings.Contains(doctor, "denied what it must be, and nothing else") {
		t.Errorf("doctor says:\n%s", doctor)
	}
}

// A canary that somebody kills or stops is no reason for alarm: another comes.
func testCanaryIsReplaced(t *testing.T, h *host) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		pid := h.canaryPID()
		must(t, syscall.Kill(pid, sig))
		if !eventually(noticed, func() bool { now := h.canaryPID(); return now != 0 && now != pid }) {
			t.Errorf("%v: no other process came for the canary %d", sig, pid)
		}
		time.Sleep(time.Second) // it has to answer: who stops it before is an alarm
	}
	h.dead(t)
	// In a guest without KVM it may take too long for the other to start.
	if sum := h.metric(t, "bailiff_canary_failures_total{"); sum != 0 && !kerneltest.InVM() {
		t.Errorf("%v failures are counted", sum)
	}
}

// notLive switches layers off, and checks everything that tells of it.
func (h *host) notLive(t *testing.T, switchOff func(), layers ...string) {
	t.Helper()
	before := map[string]int{}
	for _, layer := range layers {
		before[layer] = h.records(t, "enforcement is not live", layer)
	}
	switchOff()
	h.dead(t, layers...)
	refused := h.bailiff(t, "run", "--agent", "worker", "--", "/bin/true").ended(t, 125).says(t, "enforcement is not live", "bailiff doctor")
	code, body := h.get(t, "/readyz")
	if code != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d %s", code, body)
	}
	doctor := h.bailiff(t, "doctor").ok(t).stdout
	for _, layer := range layers {
		for name, text := range map[string]string{"the refusal": refused.stderr, "/readyz": body, "doctor": doctor} {
			if !strings.Contains(text, layer+": it was possible to") {
				t.Errorf("%s does not speak of %s: %s", name, layer, text)
			}
		}
		if !eventually(5*time.Second, func() bool { return h.records(t, "enforcement is not live", layer) == before[layer]+1 }) {
			t.Errorf("%d records tell that %s is not live, after %d", h.records(t, "enforcement is not live", layer), layer, before[layer])
		}
		if !strings.Contains(h.log.String(), "level=ERROR msg=\"enforcement is not live\" layer="+layer) {
			t.Errorf("bailiffd's log does not tell of %s", layer)
		}
		if n := h.metric(t, "bailiff_canary_failures_total{", `layer="`+layer+`"`); n < 1 {
			t.Errorf("%v failures of %s are counted", n, layer)
		}
	}
}

func testFtrace(t *testing.T, h *host) {
	if !h.full {
		return // there are no LSM programs to switch off
	}
	const knob = "/proc/sys/kernel/ftrace_enabled"
	t.Cleanup(func() { must(t, os.WriteFile(knob, []byte("1"), 0)) })
	h.notLive(t, func() { must(t, os.WriteFile(knob, []byte("0"), 0)) }, "lsm_files", "lsm_network")
	if doctor := h.bailiff(t, "doctor").ok(t).stdout; !strings.Contains(doctor, "write 1 to "+knob) {
		t.Errorf("doctor does not say what would help:\n%s", doctor)
	}
	before := h.records(t, "enforcement is live again", "lsm_files")
	must(t, os.WriteFile(knob, []byte("1"), 0))
	h.dead(t)
	h.run(t, "worker", "/bin/true").ok(t)
	if !eventually(5*time.Second, func() bool { return h.records(t, "enforcement is live again", "lsm_files") == before+1 }) {
		t.Errorf("the log does not tell that lsm_files is live again")
	}
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d %s", code, body)
	}
}

// testDetached detaches a cgroup program by its link, as root outside can.
func testDetached(t *testing.T, h *host) {
	for program, layer := range map[string]string{"connect4": "cgroup_connect", "egress": "cgroup_egress"} {
		pins, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/%s/*/links/%s", filepath.Base(h.dir), program))
		must(t, err)
		if len(pins) != 1 {
			t.Fatalf("pins of %s: %v", program, pins)
		}
		l, err := link.LoadPinnedLink(pins[0], nil)
		must(t, err)
		h.notLive(t, func() { must(t, l.Detach()); must(t, l.Close()) }, layer)
		h.stop(t, syscall.SIGTERM)
		h.start(t)
		h.dead(t)
	}
	h.run(t, "worker", "/bin/true").ok(t)
}

// testCanaryDies kills the daemon: nothing of its canary stays.
func testCanaryDies(t *testing.T, h *host) {
	used := func() string {
		var list []string
		for _, m := range h.status(t)["maps"].([]any) {
			if m := m.(map[string]any); m["name"] == "sessions" || m["name"] == "agents" {
				list = append(list, fmt.Sprint(m["name"], " ", m["used"]))
			}
		}
		return strings.Join(list, ", ")
	}
	before := ""
	if !eventually(5*time.Second, func() bool { before = used(); return strings.Contains(before, "sessions 1") }) {
		t.Errorf("there are other sessions than the canary: %s", before)
	}
	for range 2 {
		pid := h.canaryPID()
		h.stop(t, syscall.SIGKILL)
		if !eventually(5*time.Second, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }) {
			t.Errorf("the canary %d outlives its daemon", pid)
		}
		h.start(t)
		h.dead(t)
	}
	if after := used(); after != before {
		t.Errorf("there were %s, and are %s", before, after)
	}
	pid := h.canaryPID()
	h.stop(t, syscall.SIGTERM)
	if _, err := os.Stat(h.canaryGroup); err == nil || syscall.Kill(pid, 0) != syscall.ESRCH {
		t.Error("the canary outlives a daemon that stops")
	}
	h.start(t)
}
