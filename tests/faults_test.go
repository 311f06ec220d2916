// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// launchGroup may launch the agent worker on the narrow host.
const launchGroup = 54321

// TestNarrow runs what needs a daemon with little room: a small disk, small
// kernel tables, short log files; and one that lets a group launch.
func TestNarrow(t *testing.T) {
	kerneltest.RequireRoot(t)
	disk := t.TempDir()
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "mode=755,size=2m"))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	h := newHost(t, options{state: filepath.Join(disk, "state"), config: fmt.Sprintf(
		"launch: [{group: \"%d\", agents: [worker]}]\nlog: {maxBytes: 16384, keep: 60}\ncapacity: {states: 8192, transitions: 16384, ports: 512, ringBytes: 65536}\n", launchGroup)})
	for _, part := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"rotation", testRotation},
		{"capacity", testCapacity},
		{"full disk", testFullDisk},
		{"full ring", testFullRing},
		{"launch", testLaunch},
		{"terminal", testTerminal},
		{"metrics", testMetrics},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, h) })
	}
}

// testRotation follows the log over the ends of its files.
func testRotation(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	p := h.prompt(t, "worker")
	seen := &logBuffer{}
	tail := h.command("tail", "-f", "-n", "0", "--state-dir", h.state, "--session", p.id, "--verdict", "deny", "-o", "json")
	tail.Stdout = seen
	must(t, tail.Start())
	defer func() { tail.Process.Kill(); tail.Wait() }()
	time.Sleep(time.Second) // -n 0 starts at the end that it finds
	const times = 250
	for i := range 5 { // a file is not ended in the middle of a batch; the same act again would be folded
		p.do(t, fmt.Sprintf("for i in {%d..%d}; do true 3<>/dev/tcp/127.0.0.1/$i; done", i*times/5+1, (i+1)*times/5))
		time.Sleep(100 * time.Millisecond)
	}
	lines := func() int { return strings.Count(seen.String(), "\n") }
	if !eventually(20*time.Second, func() bool { return lines() >= times }) {
		t.Errorf("tail -f showed %d of %d events", lines(), times)
	}
	files, err := filepath.Glob(filepath.Join(audit.Directory(h.state), "*"))
	must(t, err)
	if len(files) < 3 {
		t.Errorf("the log was not rotated: %v", files)
	}
	count := func(flags ...string) int {
		args := append([]string{"tail", "--state-dir", h.state, "-o", "json", "--session", p.id}, flags...)
		return strings.Count(h.bailiff(t, args...).ok(t).stdout, "\n")
	}
	for _, x := range []struct {
		flags []string
		want  int
	}{
		{[]string{"-n", "all", "--verdict", "deny"}, times},
		{[]string{"-n", "all", "--verdict", "audit"}, 0},
		{[]string{"--since", "1h", "--verdict", "deny"}, times},
		{[]string{"--since", time.Now().Add(time.Hour).Format(time.RFC3339)}, 0},
		{[]string{"-n", "7", "--verdict", "deny"}, 7},
		{[]string{"-n", "all", "--kind", "session"}, 1},
	} {
		if n := count(x.flags...); n != x.want {
			t.Errorf("tail %v shows %d events, want %d", x.flags, n, x.want)
		}
	}
	p.do(t, "for i in {1..100}; do true 3<>/dev/tcp/127.0.0.9/9; done")
	var told uint64
	if !eventually(10*time.Second, func() bool {
		told = 0
		for _, ev := range h.events(t) {
			if ev.Object != nil && ev.Object.Address == "127.0.0.9" {
				told += max(ev.Count, 1)
			}
		}
		return told >= 100
	}) || told != 100 {
		t.Errorf("the log tells of %d repeats, want 100", told)
	}
}

// testCapacity applies what the kernel's tables have no room for.
func testCapacity(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	before := h.bailiff(t, "policy", "list", "-o", "json").ok(t).stdout
	p := h.prompt(t, "worker")
	var b strings.Builder
	b.WriteString(simplePolicy + "  network:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "    - {allow: connect, ip: 10.0.%d.%d, ports: [%d]}\n", i/250, i%250, i+1000)
	}
	h.apply(t, b.String(), "--replace", "--accept-degraded").ended(t, 1).says(t, "port ranges is full", "still are")
	if after := h.bailiff(t, "policy", "list", "-o", "json").ok(t).stdout; after != before {
		t.Errorf("what was in force is\n%s\nand was\n%s", after, before)
	}
	p.confined(t, "after an apply that failed")
	h.run(t, "worker", "/bin/true").ok(t)
}

// testFullDisk fills the disk of the state directory.
func testFullDisk(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	p := h.prompt(t, "worker")
	before := h.bailiff(t, "policy", "list", "-o", "json").ok(t).stdout
	free := fill(t, filepath.Join(h.state, "filler"))
	h.apply(t, simplePolicy+"  network: [{allow: connect, ip: 127.0.0.1}]\n", "--accept-degraded").
		ended(t, 1).says(t, "no space left on device", "still are")
	if after := h.bailiff(t, "policy", "list", "-o", "json").ok(t).stdout; after != before {
		t.Errorf("what was in force is\n%s\nand was\n%s", after, before)
	}
	p.confined(t, "with the disk full")
	h.bailiff(t, "run", "--agent", "worker", "--", "/bin/true").ended(t, 125).says(t, "no space left on device")
	if sessions := h.bailiff(t, "sessions", "list", "-o", "json").ok(t).stdout; strings.Count(sessions, `"id"`) != 1 {
		t.Errorf("other sessions run than the one:\n%s", sessions)
	}
	p.do(t, "for i in {1001..1050}; do true 3<>/dev/tcp/127.0.0.1/$i; done")
	if !eventually(10*time.Second, func() bool { return strings.Contains(h.log.String(), "the audit log cannot be written") }) {
		t.Error("bailiffd's log does not say that the disk is full")
	}
	// They wait in the ring, also for a daemon that comes only when there is room.
	h.stop(t, syscall.SIGKILL)
	p.do(t, "for i in {1051..1060}; do true 3<>/dev/tcp/127.0.0.1/$i; done")
	free()
	h.start(t)
	told := map[uint16]int{}
	h.bailiff(t, "sessions", "list").ok(t)
	eventually(10*time.Second, func() bool {
		clear(told)
		for _, ev := range h.events(t) {
			if ev.Object != nil && ev.Object.Port > 1000 && ev.Object.Port <= 1060 && ev.Session == p.id {
				told[ev.Object.Port]++
			}
		}
		return len(told) >= 60
	})
	for port := range uint16(60) {
		if n := told[1001+port]; n != 1 {
			t.Errorf("the log tells %d times of port %d, which was tried with the disk full", n, 1001+port)
		}
	}
	if h.tellsOfLoss(t, "kernel") || h.tellsOfLoss(t, "write") {
		t.Error("the log tells of lost events")
	}
	h.enforce(t, simplePolicy)
	h.run(t, "worker", "/bin/true").ok(t)
	p.confined(t, "with room again")
}

// tellsOfLoss tells whether the log has it that events were lost at a stage.
func (h *host) tellsOfLoss(t *testing.T, stage string) bool {
	t.Helper()
	for _, ev := range h.events(t) {
		if ev.Message == "events were lost" && ev.Fields["stage"] == stage {
			return true
		}
	}
	return false
}

// testFullRing has more happen than waits for a daemon that sleeps.
func testFullRing(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	p := h.prompt(t, "worker")
	must(t, h.process.Process.Signal(syscall.SIGSTOP))
	p.do(t, "for i in {1..600}; do true 3<>/dev/tcp/127.0.0.1/$i; done")
	p.confined(t, "with the ring of events full")
	must(t, h.process.Process.Signal(syscall.SIGCONT))
	lost := func() float64 {
		return h.metric(t, "bailiff_events_dropped_total{", `stage="kernel"`, `agent="spiffe://local/agent/worker"`)
	}
	if !eventually(10*time.Second, func() bool { return lost() > 0 }) {
		t.Error("no event is counted as lost with the ring full")
	}
	if !eventually(10*time.Second, func() bool { return h.tellsOfLoss(t, "kernel") }) {
		t.Error("the log does not tell of the loss")
	}
	if dropped := h.status(t)["dropped"]; dropped == "0" {
		t.Errorf("doctor says that %v events were lost", dropped)
	}
}

// fill leaves no byte on a disk, until the returned function is called.
func fill(t *testing.T, path string) (free func()) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	t.Cleanup(func() { os.Remove(path) })
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
	return func() { must(t, os.Remove(path)) }
}

// get asks the metrics' server.
func (h *host) get(t *testing.T, path string) (int, string) {
	t.Helper()
	answer, err := http.Get("http://" + h.scrape + path)
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(body)
}

// metric adds up the series that begin with a text and hold others; -1: none.
func (h *host) metric(t *testing.T, begin string, hold ...string) float64 {
	t.Helper()
	_, body := h.get(t, "/metrics")
	sum := -1.0
lines:
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, begin) {
			continue
		}
		for _, text := range hold {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:len(line)-1], 64)
		must(t, err)
		sum = max(sum, 0) + value
	}
	return sum
}

// testMetrics looks at what monitoring sees.
func testMetrics(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	denied := func() float64 {
		return h.metric(t, "bailiff_verdicts_total{", `agent="spiffe://local/agent/worker"`, `kind="network"`, `verdict="deny"`)
	}
	before := max(denied(), 0)
	p := h.prompt(t, "worker")
	p.do(t, "true 3<>/dev/tcp/127.0.0.1/9")
	p.do(t, "true 3<>/dev/tcp/127.0.0.1/9")
	if n := denied(); n != before+2 {
		t.Errorf("%v network denials are counted after two more, %v before", n, before)
	}
	for series, want := range map[string]func(float64) bool{
		"bailiff_build_info{":                           func(v float64) bool { return v == 1 },
		"bailiff_sessions{":                             func(v float64) bool { return v == 1 },
		"bailiff_sessions_started_total":                func(v float64) bool { return v >= 1 },
		"bailiff_policy_generation":                     func(v float64) bool { return v > 1 },
		"bailiff_policy_last_applied_timestamp_seconds": func(v float64) bool { return time.Since(time.Unix(int64(v), 0)) < time.Hour },
		"bailiff_map_entries{":                          func(v float64) bool { return v > 0 },
		"bailiff_map_capacity{":                         func(v float64) bool { return v > 8192 },
		"bailiff_log_bytes_written_total":               func(v float64) bool { return v > 0 },
		"bailiff_decision_duration_seconds_count":       func(v float64) bool { return v >= 0 },
		"go_goroutines":                                 func(v float64) bool { return v > 0 },
		"process_resident_memory_bytes":                 func(v float64) bool { return v > 1<<20 },
	} {
		if v := h.metric(t, series); !want(v) {
			t.Errorf("%s is %v", series, v)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := h.get(t, path); code != http.StatusOK {
			t.Errorf("%s answers %d %s", path, code, body)
		}
	}
	doctor := h.bailiff(t, "doctor").ok(t).stdout
	for _, word := range []string{"tier", "LSM programs", "CAPACITY", h.state} {
		if !strings.Contains(doctor, word) {
			t.Errorf("doctor does not say %q:\n%s", word, doctor)
		}
	}
}
