// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// Without these variables TestKills kills the daemon 200 times, in a guest as often
// as fits into guestTime.
const (
	killsVariable     = "BAILIFF_KILLS"     // how often
	killsTimeVariable = "BAILIFF_KILLS_FOR" // at most for so long
	guestTime         = time.Minute
)

// killsPolicies alternate. A denied connection is told with the rule of the one that
// judged it, and those have different numbers.
func killsPolicies() [2]string {
	text := func(name, more string) string {
		return `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: ` + name + `}
spec:
  subject: {spiffeID: worker}
  presets: [runtime]
  files:
    - {path: "%WORK%", allow: [read, write, create, delete, execute]}
    - {path: "%SELF%", allow: [read, execute]}
  network:
    - {allow: connect, ip: 127.0.0.1, ports: [7]}
` + more + `
    - {deny: connect, cidr: 127.64.0.0/10}
`
	}
	var lines []string
	for i := range 50 {
		lines = append(lines, fmt.Sprintf("    - {allow: connect, ip: 10.0.0.%d, ports: [%d-65535]}", i, i+1))
	}
	return [2]string{text("kills-a", ""), text("kills-b", strings.Join(lines, "\n"))}
}

// kills is a run of TestKills.
type kills struct {
	*host
	self     string
	policies [2]string // names of files
	workers  []*exec.Cmd
	inputs   []io.Closer
	outputs  []*logBuffer

	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex
	applied int      // applies that were answered
	applies int      // that were asked for
	shorts  []string // tasks of short sessions that were started
	unasked int      // short sessions that no daemon was there for
	wrong   []string
}

// TestKills kills the daemon at random moments, with sessions, launches and applies
// going on. What was denied stays denied, what was allowed allowed, and the log has
// everything once.
func TestKills(t *testing.T) {
	h := newHost(t, options{config: "log: {maxBytes: 1048576, keep: 10000, rate: 1000000, burst: 10000000}\ncapacity: {ringBytes: 33554432}\n"})
	k := &kills{host: h, self: h.workerBinary(t), stop: make(chan struct{})}
	for i, text := range killsPolicies() {
		k.policies[i] = filepath.Join(h.dir, fmt.Sprintf("policy-%d.yaml", i))
		write(t, k.policies[i], strings.ReplaceAll(h.expand(text), "%SELF%", k.self))
	}
	before, guardrail := k.fresh(t), k.guardrail(t)
	k.start(t)
	began := time.Now()
	n := k.killAll(t)
	k.finish(t)
	t.Logf("%d kills in %v", n, time.Since(began).Round(time.Second))
	k.check(t)
	k.apply(t, 0)
	after := k.traces(t)
	if k.guardrail(t) == guardrail {
		if after != before {
			t.Errorf("what is left is\n%s\nand was\n%s", after, before)
		}
		return
	}
	// What is mounted has changed meanwhile, and with it the guardrail's rules.
	if withoutFileRules(after) != withoutFileRules(before) {
		t.Errorf("what is left is\n%s\nand was\n%s", after, before)
	}
	h.stop(t, syscall.SIGTERM)
	if out, err := h.daemon("--remove").CombinedOutput(); err != nil {
		t.Fatalf("bailiffd --remove: %v: %s", err, out)
	}
	h.start(t)
	if fresh := k.fresh(t); after != fresh {
		t.Errorf("what is left is\n%s\nwas\n%s\nand is, in a daemon that starts,\n%s", after, before, fresh)
	}
}

// guardrail returns the rules that go by what is mounted.
func (k *kills) guardrail(t *testing.T) string {
	t.Helper()
	return k.bailiff(t, "policy", "show", "builtin").ok(t).stdout
}

// withoutFileRules leaves out of traces how large the tables of paths are.
func withoutFileRules(traces string) string {
	lines := strings.Split(traces, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "states:") || strings.HasPrefix(line, "edges:") || strings.HasPrefix(line, "globs:")
	}), "\n")
}

// fresh returns the traces of a daemon that has just started, once agents have got
// their numbers and the tables their usual size.
func (k *kills) fresh(t *testing.T) string {
	t.Helper()
	k.apply(t, 0)
	k.run(t, "worker", k.self, workerCommand, "120", "once", "0").ok(t)
	return k.traces(t)
}

// workerBinary puts this binary where sessions can be allowed to run it.
func (h *host) workerBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	binary, err := os.ReadFile(self)
	must(t, err)
	path := filepath.Join(h.dir, "worker")
	must(t, os.WriteFile(path, binary, 0o755))
	return path
}

func (k *kills) apply(t *testing.T, which int) {
	t.Helper()
	k.bailiff(t, "policy", "apply", k.policies[which], "--replace", "--accept-degraded").ok(t)
}

// start starts the load.
func (k *kills) start(t *testing.T) {
	t.Helper()
	write(t, filepath.Join(k.work, "file"), "x\n")
	for w := range 3 {
		denied := filepath.Join(k.dir, fmt.Sprintf("denied-%d", w))
		must(t, os.Mkdir(denied, 0o777))
		c, _ := k.prepareRun("worker", k.self, workerCommand, strconv.Itoa(65+w), denied, filepath.Join(k.work, "file"), pace().String())
		in, err := c.StdinPipe()
		must(t, err)
		out := &logBuffer{}
		c.Stdout = out
		must(t, c.Start())
		k.workers, k.inputs, k.outputs = append(k.workers, c), append(k.inputs, in), append(k.outputs, out)
	}
	for _, out := range k.outputs {
		if !eventually(time.Minute, func() bool { return out.String() != "" }) {
			t.Fatal("the workers do not run")
		}
	}
	k.running.Go(k.keepApplying)
	k.running.Go(k.keepLaunching)
}

func (k *kills) stopped() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

func (k *kills) keepApplying() {
	for i := 1; !k.stopped(); i++ {
		err := k.command("policy", "apply", k.policies[i%2], "--replace", "--accept-degraded").Run()
		k.mu.Lock()
		k.applies++
		if err == nil {
			k.applied++
		}
		k.mu.Unlock()
		time.Sleep(10 * pace())
	}
}

// keepLaunching runs sessions of one act each.
func (k *kills) keepLaunching() {
	for i := 0; !k.stopped() && i < maxIndex; i++ {
		task := fmt.Sprintf("short-%d", i)
		out, err := k.command("run", "--agent", "worker", "--task", task, "--", k.self, workerCommand, "100", "once", strconv.Itoa(i)).Output()
		k.mu.Lock()
		switch code := exitCode(err); {
		case code == 0:
			k.shorts = append(k.shorts, task)
		case code == 125 && len(out) == 0:
			k.unasked++
		default:
			k.wrong = append(k.wrong, fmt.Sprintf("%s ended with status %d: %s", task, code, out))
		}
		k.mu.Unlock()
		time.Sleep(10 * pace())
	}
}

func exitCode(err error) int {
	switch e := err.(type) {
	case nil:
		return 0
	case *exec.ExitError:
		return e.ExitCode()
	}
	return -1
}

func killsWanted(t *testing.T) (kills int, limit time.Duration) {
	t.Helper()
	kills, limit = 200, time.Hour
	if kerneltest.InVM() {
		limit = guestTime
	}
	var err error
	if text := os.Getenv(killsVariable); text != "" {
		kills, err = strconv.Atoi(text)
		must(t, err)
		limit = 2 * time.Hour
	}
	if text := os.Getenv(killsTimeVariable); text != "" {
		limit, err = time.ParseDuration(text)
		must(t, err)
	}
	return kills, limit
}

// killAll kills the daemon, also while it starts, and starts it, again and again.
func (k *kills) killAll(t *testing.T) (n int) {
	t.Helper()
	want, limit := killsWanted(t)
	began := time.Now()
	k.host.stop(t, syscall.SIGKILL)
	usual := k.host.start(t)
	for n = 1; n < want && time.Since(began) < limit; n++ {
		time.Sleep(rand.N(2 * usual))
		must(t, k.process.Process.Kill())
		_ = k.process.Wait() // it was killed
		k.process = k.daemon()
		k.process.Stdout, k.process.Stderr = k.log, k.log
		must(t, k.process.Start())
	}
	must(t, k.process.Process.Kill())
	_ = k.process.Wait()
	k.host.start(t)
	return n + 1
}

// finish ends the load.
func (k *kills) finish(t *testing.T) {
	t.Helper()
	close(k.stop)
	k.running.Wait()
	for i, c := range k.workers {
		must(t, k.inputs[i].Close())
		if err := c.Wait(); err != nil {
			t.Errorf("worker %d: %v", i, err)
		}
	}
	if !eventually(30*time.Second, func() bool {
		return !strings.Contains(k.bailiff(t, "sessions", "list", "-o", "json").ok(t).stdout, `"id"`)
	}) {
		t.Error("sessions run that should not")
	}
}

// traces is what sessions and policies could leave behind: the use of the tables, the
// pins, the cgroups, and the files.
func (k *kills) traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if !eventually(30*time.Second, func() bool {
		b.Reset()
		status := k.status(t)
		fmt.Fprintf(&b, "sessions %v\n", status["sessions"])
		for _, m := range status["maps"].([]any) {
			// The mounts are the whole machine's.
			if m := m.(map[string]any); m["name"] != "homes" {
				fmt.Fprintf(&b, "%v: %v\n", m["name"], m["used"])
			}
		}
		half, err := filepath.Glob(k.state + "/*.new-*") // being written, or left
		must(t, err)
		return len(half) == 0 && (status["sessions"] == nil || status["sessions"] == float64(0))
	}) {
		t.Error("sessions do not end, or files are left half-written")
	}
	pins, err := filepath.Glob("/sys/fs/bpf/" + filepath.Base(k.dir) + "/*/*/*")
	must(t, err)
	cgroups, err := filepath.Glob(filepath.Join(k.sessionsDirectory, "s-*"))
	must(t, err)
	files, err := filepath.Glob(k.state + "/*")
	must(t, err)
	fmt.Fprintf(&b, "%d pins\n%v\n%v", len(pins), cgroups, files)
	return b.String()
}
