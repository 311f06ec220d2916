// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// host is a private bailiffd.
type host struct {
	dir, name   string
	state, pins string
	config      string
	socket, bin string
	process     *exec.Cmd
	log         *logBuffer
}

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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(limit time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if f() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// maxProcesses is what all sessions may have; one has half.
const maxProcesses = 1200

// newHost starts a daemon, and takes all of it off the guest when the test ends.
func newHost(t *testing.T, tier string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "bailiff-escape-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	bin, err := filepath.Abs("../../build")
	must(t, err)
	name := filepath.Base(dir)
	h := &host{
		dir: dir, name: name, state: filepath.Join(dir, "state"), pins: "/sys/fs/bpf/" + name, bin: bin,
		config: filepath.Join(dir, "bailiffd.yaml"), socket: filepath.Join(dir, "run", "admin.sock"), log: &logBuffer{},
	}
	config := fmt.Sprintf("stateDir: %s\nrunDir: %s\npinDir: %s\ncgroup: %s\nmetrics: \"off\"\ntier: %s\nmaxProcesses: %d\n",
		h.state, filepath.Dir(h.socket), h.pins, name, tier, maxProcesses)
	must(t, os.WriteFile(h.config, []byte(config), 0o644))
	h.process = h.daemon()
	h.process.Stdout, h.process.Stderr = h.log, h.log
	must(t, h.process.Start())
	t.Cleanup(func() { h.remove(t) })
	if !eventually(3*time.Minute, func() bool { return strings.Contains(h.log.String(), "bailiffd serves") }) {
		t.Fatalf("bailiffd does not serve:\n%s", h.log)
	}
	return h
}

func (h *host) daemon(flags ...string) *exec.Cmd {
	return exec.Command(filepath.Join(h.bin, "bailiffd"), append([]string{"--config", h.config}, flags...)...)
}

func (h *host) remove(t *testing.T) {
	_ = h.process.Process.Signal(syscall.SIGTERM) // an attack may have ended it
	_ = h.process.Wait()
	if out, err := h.daemon("--remove").CombinedOutput(); err != nil {
		t.Errorf("bailiffd --remove: %v: %s", err, out)
	}
	if t.Failed() {
		t.Logf("bailiffd's log:\n%s", h.log)
	}
}

// bailiff runs the command line.
func (h *host) bailiff(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	c := exec.Command(filepath.Join(h.bin, "bailiff"), args...)
	c.Env = append(os.Environ(), "BAILIFF_SOCKET="+h.socket)
	c.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("bailiff %v: %v: %s", args, err, stderr.String())
	}
	return stdout.String()
}

// denials returns what each task was denied, once all of them have ended.
func (h *host) denials(t *testing.T, tasks []string) map[string][]audit.Event {
	t.Helper()
	var denied map[string][]audit.Event
	ended := eventually(time.Minute, func() bool {
		denied = map[string][]audit.Event{}
		over := 0
		for line := range h.lines(t) {
			// The flood's own records are no attempt's.
			if !bytes.Contains(line, []byte(`"deny"`)) && !bytes.Contains(line, []byte("session ended")) || bytes.Contains(line, []byte("/secret/loud-")) {
				continue
			}
			ev, err := audit.Decode(line)
			must(t, err)
			if ev.Message == "session ended" {
				over++
			}
			if ev.Kind == audit.Action && ev.Verdict == "deny" {
				denied[ev.Task] = append(denied[ev.Task], ev)
			}
		}
		return over >= len(tasks)
	})
	if !ended {
		t.Error("the log does not tell of the end of all sessions")
	}
	return denied
}

// lines goes through the log, the rotated files first.
func (h *host) lines(t *testing.T) iter.Seq[[]byte] {
	t.Helper()
	files, err := filepath.Glob(audit.Directory(h.state) + "/*.jsonl")
	must(t, err)
	return func(yield func([]byte) bool) {
		for _, file := range files {
			text, err := os.ReadFile(file)
			must(t, err)
			for line := range bytes.Lines(text) {
				if bytes.HasSuffix(line, []byte("\n")) && !yield(line) {
					return
				}
			}
		}
	}
}

// describe puts an event as technique.seen has it.
func describe(ev *audit.Event) string {
	why := ev.Reason
	if why == "rule" {
		why = ev.Rule
	}
	text := ev.Operation + " " + why
	for _, o := range []*audit.Object{ev.Object, ev.Target} {
		switch {
		case o == nil:
		case o.Address != "":
			text += fmt.Sprintf(" %s:%d/%s", o.Address, o.Port, o.Protocol)
		case o.PID != 0:
			text += fmt.Sprintf(" process %d", o.PID)
		default:
			text += " " + o.Path + o.Family
		}
	}
	return text
}
