// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// prompt is a session that does what it is told while other things happen.
type prompt struct {
	session
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	id  string
}

// prompt starts a session of a shell.
func (h *host) prompt(t *testing.T, agent string) *prompt {
	t.Helper()
	c, task := h.prepareRun(agent, "/bin/bash", "-c", `echo "$BAILIFF_SESSION"; while read -r line; do eval "$line"; echo "=$?"; done`)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	p := &prompt{session: session{host: h, task: task}, cmd: c, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() { p.end() })
	if p.id, err = p.out.ReadString('\n'); err != nil {
		t.Fatalf("start a session: %v", err)
	}
	p.id = strings.TrimSpace(p.id)
	return p
}

// do runs one command in the session and returns its status.
func (p *prompt) do(t *testing.T, command string) string {
	t.Helper()
	if _, err := io.WriteString(p.in, p.host.expand(command)+" 2>/dev/null\n"); err != nil {
		t.Fatalf("tell the session: %v", err)
	}
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			t.Fatalf("hear from the session: %v", err)
		}
		if code, ok := strings.CutPrefix(line, "="); ok {
			return strings.TrimSpace(code)
		}
	}
}

// confined fails the test unless the session is denied what it should be, and
// nothing else.
func (p *prompt) confined(t *testing.T, when string) {
	t.Helper()
	for command, allowed := range map[string]bool{
		"echo x > %WORK%/file":                     true,
		"read x < %DIR%/home/.ssh/id_ed25519":      false,
		"true < /dev/tcp/127.0.0.1/" + secretPort:  false,
		"true 3<>/dev/tcp/127.0.0.1/" + secretPort: false,
	} {
		if code := p.do(t, command); (code == "0") != allowed {
			t.Errorf("%s: %q ended with status %s", when, command, code)
		}
	}
}

// secretPort is one that no policy here allows and nothing listens on.
const secretPort = "9"

func (p *prompt) end() int {
	if p.cmd.ProcessState == nil {
		p.in.Close()
		p.cmd.Wait()
	}
	return p.cmd.ProcessState.ExitCode()
}

const simplePolicy = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: simple}
spec:
  subject: {spiffeID: worker}
  presets: [runtime, shell]
  files:
    - {path: %WORK%, allow: [read, write, create, delete, execute]}
`

// testLifecycle stops, kills and restarts the daemon around a session.
func testLifecycle(t *testing.T, h *host) {
	write(t, filepath.Join(h.dir, "home/.ssh/id_ed25519"), "secret\n")
	h.enforce(t, simplePolicy)
	p := h.prompt(t, "worker")
	p.confined(t, "at first")
	brief := h.prompt(t, "worker")
	before := h.bailiff(t, "policy", "show", "simple").ok(t).stdout
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if code := h.stop(t, sig); sig == syscall.SIGTERM && code != 0 {
			t.Errorf("SIGTERM: bailiffd ended with status %d", code)
		}
		p.confined(t, fmt.Sprintf("after %v", sig))
		if code := p.do(t, "read x < %DIR%/while-"+sig.String()[:4]); code == "0" {
			t.Error("read a file that is not there")
		}
		for port := range 2 { // acts that were not told before: the same again would be folded
			if code := p.do(t, "true 3<>/dev/tcp/127.0.0.1/"+strconv.Itoa(20+100*port+int(sig))); code == "0" {
				t.Error("connected to a port that it may not")
			}
		}
		if sig == syscall.SIGTERM {
			if code := brief.end(); code != 0 {
				t.Errorf("a session that ended with no daemon there has status %d", code)
			}
		}
		h.bailiff(t, "policy", "list").ended(t, 1).says(t, "systemctl start bailiffd")
		h.bailiff(t, "run", "--agent", "worker", "--", "/bin/true").ended(t, 125).says(t, "systemctl start bailiffd")
		h.start(t)
		p.confined(t, "after the restart")
		list := h.bailiff(t, "sessions", "list").ok(t).stdout
		if !strings.Contains(list, p.id) || strings.Contains(list, brief.id) {
			t.Errorf("after %v %s should be listed, and %s not:\n%s", sig, p.id, brief.id, list)
		}
	}
	checkGaps(t, h.events(t))
	if after := h.bailiff(t, "policy", "show", "simple").ok(t).stdout; after != before {
		t.Errorf("the policy was\n%s\nand is\n%s", before, after)
	}
	h.bailiff(t, "policy", "delete", "simple").ok(t)
	if h.full {
		for _, command := range []string{"echo x > %WORK%/file", "read x < %WORK%/file", "/usr/bin/true"} {
			if code := p.do(t, command); code == "0" {
				t.Errorf("%q succeeds without any policy", command)
			}
		}
	}
	if code := p.do(t, "true < /dev/tcp/127.0.0.1/"+secretPort); code == "0" {
		t.Error("a connection is made without any policy")
	}
	h.bailiff(t, "run", "--agent", "worker", "--", "/bin/true").ended(t, 125).says(t, "no policy is about", "policy apply")
	h.bailiff(t, "sessions", "stop", p.id).ok(t)
	if code := p.end(); code != 128+int(syscall.SIGKILL) && code != -1 {
		t.Errorf("run ended with status %d after its session was stopped", code)
	}
	p.events(t) // from then on the daemon knows that it has ended
	if h.full {
		time.Sleep(2500 * time.Millisecond) // until the last repeats are told
		checkOnce(t, p.events(t))
	}
	h.bailiff(t, "sessions", "stop", p.id).ended(t, 1).says(t, "has ended")
}

// testStalePins finds the pins of another build that confine nobody.
func testStalePins(t *testing.T, h *host) {
	if kerneltest.InVM() {
		t.Skip(kerneltest.SkipReason + "time: loading anew takes long in a guest without KVM")
	}
	h.enforce(t, simplePolicy)
	h.stop(t, syscall.SIGTERM)
	pins, err := filepath.Glob("/sys/fs/bpf/" + filepath.Base(h.dir) + "/*")
	must(t, err)
	other := filepath.Join(filepath.Dir(pins[0]), strings.Repeat("0", len(filepath.Base(pins[0]))))
	must(t, os.Rename(pins[0], other))
	h.start(t)
	h.run(t, "worker", "/bin/true").ok(t)
	if _, err := os.Stat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pins of another build that confine nobody stay: %v", err)
	}
}

// checkGaps: the log says of the last two times without a daemon how they began,
// and what waited for its end.
func checkGaps(t *testing.T, events []audit.Event) {
	t.Helper()
	var gaps []map[string]string
	for _, ev := range events {
		if ev.Message == "daemon gap" {
			gaps = append(gaps, ev.Fields)
		}
	}
	if len(gaps) < 2 {
		t.Fatalf("the log tells of %d gaps", len(gaps))
	}
	for i, previous := range []string{"stopped", "killed"} {
		gap := gaps[len(gaps)-2+i]
		waiting, _ := strconv.Atoi(gap["waiting"])
		from, err1 := time.Parse(time.RFC3339Nano, gap["from"])
		to, err2 := time.Parse(time.RFC3339Nano, gap["to"])
		if gap["previous"] != previous || gap["dropped"] != "0" || waiting < 2 || err1 != nil || err2 != nil || !from.Before(to) {
			t.Errorf("the log tells of the gap %v, after a daemon was %s", gap, previous)
		}
	}
}

// checkOnce looks for the log to tell of everything once, also of what happened
// with no daemon there: this session opened the key five times.
func checkOnce(t *testing.T, events []audit.Event) {
	t.Helper()
	opened, seen, folds := 0, map[string]bool{}, map[string]bool{}
	for _, ev := range events {
		if seen[ev.ID] {
			t.Errorf("the event %s is in the log twice", ev.ID)
		}
		seen[ev.ID] = true
		// A daemon that returned does not know the path of what was repeated before: the fold says it.
		key := strings.HasSuffix(describe(&ev), "/home/.ssh/id_ed25519") || ev.PID == 0 && folds[ev.Fold]
		if ev.Kind == audit.Action && key {
			folds[ev.Fold] = true
			opened += int(max(ev.Count, 1))
		}
	}
	if opened != 5 {
		t.Errorf("the log tells %d times that the key was denied, not 5", opened)
	}
}

// testOthers starts daemons beside one that runs: none may touch what is its own.
func testOthers(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	generation := h.status(t)["generation"]
	name := filepath.Base(h.dir)
	for _, x := range []struct {
		name, says string
		flags      []string
	}{
		{"the same everything", "another bailiffd is using", nil},
		{"the same pins", "another bailiffd is using", []string{"--state-dir", h.dir + "/s1", "--cgroup", name + "-other"}},
		{"the same cgroup", "another bailiffd is using", []string{"--state-dir", h.dir + "/s2", "--pin-dir", "/sys/fs/bpf/" + name + "-other"}},
		{"removal of the same pins", "another bailiffd is using", []string{"--remove", "--state-dir", h.dir + "/s3"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := h.daemon(append([]string{"--run-dir", h.dir + "/run2"}, x.flags...)...)
			time.AfterFunc(time.Minute, func() { c.Process.Kill() })
			finish(t, c).ended(t, 1).says(t, x.says)
		})
	}
	h.run(t, "worker", "/bin/true").ok(t)
	if now := h.status(t)["generation"]; now != generation {
		t.Errorf("the generation was %v and is %v", generation, now)
	}
	os.Remove(filepath.Join(h.cgroup(t), name+"-other"))
}

// testCgroup removes the sessions' cgroup under the running daemon.
func testCgroup(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	path := h.status(t)["cgroup"].(string)
	if !eventually(10*time.Second, func() bool {
		// The canary is in it, and comes again.
		_ = os.WriteFile(filepath.Join(h.canaryGroup, "cgroup.kill"), []byte("1"), 0)
		_ = os.Remove(h.canaryGroup)
		return os.Remove(path) == nil
	}) {
		t.Fatalf("%s cannot be removed", path)
	}
	h.bailiff(t, "run", "--agent", "worker", "--", "/bin/true").ended(t, 125).says(t, "restart bailiffd")
	h.bailiff(t, "policy", "list").ok(t)
	h.stop(t, syscall.SIGTERM)
	h.start(t)
	h.prompt(t, "worker").confined(t, "after the cgroup was removed")
	// Where the port answers, a connection that is refused and one that is denied differ.
	port := serve(t, "tcp", "127.0.0.1:0")
	if s := h.shell(t, "worker", "true 3<>/dev/tcp/127.0.0.1/"+port[strings.LastIndexByte(port, ':')+1:]); s.code == 0 {
		t.Error("the network is open")
	}
}
