// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// systemPath is the PATH of sessions: that of a plain login.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"

// host is a private bailiffd with the directories that it and its sessions use.
// It is for one goroutine, but for its log.
type host struct {
	dir        string // of everything below
	work       string // the sessions' own tree, and their working directory
	state      string
	config     string // configuration file
	bin        string
	daemonPath string        // bailiffd; an upgrade is another one
	took       time.Duration // until it served, the last time
	socket     string
	scrape     string // address of the metrics
	full       bool   // the full tier

	environment []string // more of the daemon's
	canaryGroup string   // directory of the canary's cgroup

	sessionsDirectory string // the parent of the sessions' cgroups

	process *exec.Cmd
	log     *logBuffer
	runs    int // names tasks
}

// logBuffer is what a process writes that still runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// options of a host; the zero value is the usual.
type options struct {
	state  string // an existing directory; "": one of the host's own
	config string // more lines of the configuration
}

// newHost starts a daemon, and takes all of it off the machine when the test ends.
func newHost(t *testing.T, o options) *host {
	t.Helper()
	h := prepare(t, o)
	h.start(t)
	return h
}

// prepare makes everything but the running daemon.
func prepare(t *testing.T, o options) *host {
	t.Helper()
	kerneltest.RequireRoot(t)
	dir, err := os.MkdirTemp("", "bailiff-system-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	h := &host{
		dir: dir, work: filepath.Join(dir, "work"), state: o.state, bin: binaries(t, dir), log: &logBuffer{},
		config: filepath.Join(dir, "bailiffd.yaml"), socket: filepath.Join(dir, "run", "admin.sock"), scrape: freeAddress(t),
	}
	h.daemonPath = filepath.Join(h.bin, "bailiffd")
	if h.state == "" {
		h.state = filepath.Join(dir, "state")
	}
	must(t, os.Mkdir(h.work, 0o755))
	name := filepath.Base(dir)
	config := fmt.Sprintf("stateDir: %s\nrunDir: %s\npinDir: /sys/fs/bpf/%s\ncgroup: %s\nmetrics: %s\n%s",
		h.state, filepath.Dir(h.socket), strings.ReplaceAll(name, ".", "-"), name, h.scrape, o.config)
	must(t, os.WriteFile(h.config, []byte(config), 0o644))
	t.Cleanup(func() { h.remove(t) })
	return h
}

// binaries returns the directory of bailiff and bailiffd.
func binaries(t *testing.T, dir string) string {
	t.Helper()
	if kerneltest.InVM() {
		built, err := filepath.Abs("../build")
		must(t, err)
		return built
	}
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "../cmd/bailiff", "../cmd/bailiffd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	return bin
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon prepares bailiffd.
func (h *host) daemon(flags ...string) *exec.Cmd {
	c := exec.Command(h.daemonPath, append([]string{"--config", h.config}, flags...)...)
	c.Env = append(os.Environ(), h.environment...)
	return c
}

// start starts the daemon, waits until it serves, and learns its tier. It returns
// how long that took.
func (h *host) start(t *testing.T) time.Duration {
	t.Helper()
	before := len(h.log.String())
	began := time.Now()
	h.process = h.daemon()
	h.process.Stdout, h.process.Stderr = h.log, h.log
	must(t, h.process.Start())
	served := eventually(2*time.Minute, func() bool {
		return strings.Contains(h.log.String()[before:], "bailiffd serves") || !alive(h.process)
	})
	if !served || !alive(h.process) {
		t.Fatalf("bailiffd does not serve:\n%s", h.log.String()[before:])
	}
	h.took = time.Since(began)
	t.Logf("bailiffd serves after %v", h.took.Round(time.Millisecond))
	status := h.status(t)
	h.full, h.sessionsDirectory = status["tier"] == "full", status["cgroup"].(string)
	h.canaryGroup = filepath.Join(h.sessionsDirectory, "canary")
	return h.took
}

func (h *host) status(t *testing.T) map[string]any {
	t.Helper()
	status := map[string]any{}
	must(t, json.Unmarshal([]byte(h.bailiff(t, "doctor", "-o", "json").ok(t).stdout), &status))
	return status
}

// alive tells whether a child runs; one that has ended is not waited for.
func alive(c *exec.Cmd) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	return !strings.HasPrefix(rest, "Z")
}

// stop ends the daemon by a signal and returns its exit status.
func (h *host) stop(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	must(t, h.process.Process.Signal(sig))
	_ = h.process.Wait() // the state says more
	code := h.process.ProcessState.ExitCode()
	h.process = nil
	return code
}

// remove takes the host's programs, cgroups and processes off the machine.
func (h *host) remove(t *testing.T) {
	if h.process != nil {
		if code := h.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("bailiffd ended with status %d", code)
		}
	}
	out, err := h.daemon("--remove").CombinedOutput()
	if err != nil {
		t.Errorf("bailiffd --remove: %v: %s", err, out)
	}
	if t.Failed() {
		t.Logf("bailiffd's log:\n%s", h.log)
	}
}

func eventually(limit time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if f() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// cgroup returns the directory of the sessions' cgroup's parent: the hierarchy's root.
func (h *host) cgroup(t *testing.T) string {
	t.Helper()
	return filepath.Dir(h.status(t)["cgroup"].(string))
}
