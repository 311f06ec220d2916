// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// ok fails the test unless the command succeeded.
func (r result) ok(t *testing.T) result {
	t.Helper()
	return r.ended(t, 0)
}

// ended fails the test unless the command ended with a status.
func (r result) ended(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit status %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.stdout, r.stderr)
	}
	return r
}

// says fails the test unless standard error contains each text.
func (r result) says(t *testing.T, texts ...string) result {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error does not say %q:\n%s", text, r.stderr)
		}
	}
	return r
}

// command prepares bailiff with the environment of a plain login.
func (h *host) command(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(h.bin, "bailiff"), args...)
	c.Dir = h.work
	c.Env = []string{"PATH=" + systemPath, "HOME=/root", "LANG=C.UTF-8", "USER=root", "BAILIFF_SOCKET=" + h.socket}
	return c
}

func finish(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", c.Args, err)
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// bailiff runs the command line to its end.
func (h *host) bailiff(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, h.command(args...))
}

// apply puts policies in force; placeholders are those of expand.
func (h *host) apply(t *testing.T, text string, flags ...string) result {
	t.Helper()
	c := h.command(append([]string{"policy", "apply", "-"}, flags...)...)
	c.Stdin = strings.NewReader(h.expand(text))
	return finish(t, c)
}

// enforce replaces what is in force, accepting what the tier can't do.
func (h *host) enforce(t *testing.T, text string) {
	t.Helper()
	h.apply(t, text, "--replace", "--accept-degraded").ok(t)
}

// expand replaces %WORK% and %DIR% by the host's directories.
func (h *host) expand(text string) string {
	return strings.NewReplacer("%WORK%", h.work, "%DIR%", h.dir).Replace(text)
}

// session is a run that ended.
type session struct {
	result
	host *host
	task string
}

// prepareRun makes a run of a task of its own.
func (h *host) prepareRun(agent string, command ...string) (c *exec.Cmd, task string) {
	h.runs++
	task = fmt.Sprintf("task-%d", h.runs)
	return h.command(append([]string{"run", "--agent", agent, "--task", task, "--"}, command...)...), task
}

// run runs a command in a session.
func (h *host) run(t *testing.T, agent string, command ...string) session {
	t.Helper()
	c, task := h.prepareRun(agent, command...)
	return session{finish(t, c), h, task}
}

// shell runs a script in a session.
func (h *host) shell(t *testing.T, agent, script string) session {
	t.Helper()
	return h.run(t, agent, "/bin/bash", "-c", h.expand(script))
}

// events returns the whole log.
func (h *host) events(t *testing.T) []audit.Event {
	t.Helper()
	out := h.bailiff(t, "tail", "--state-dir", h.state, "-n", "all", "-o", "json").ok(t)
	var events []audit.Event
	for line := range strings.Lines(out.stdout) {
		var ev audit.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("a line of the log is not JSON: %v: %q", err, line)
		}
		events = append(events, ev)
	}
	return events
}

// events returns a session's, once it has ended.
func (s session) events(t *testing.T) (own []audit.Event) {
	t.Helper()
	ended := eventually(20*time.Second, func() bool {
		own = nil
		for _, ev := range s.host.events(t) {
			if ev.Task == s.task {
				own = append(own, ev)
			}
		}
		return len(own) > 0 && own[len(own)-1].Message == "session ended"
	})
	if !ended {
		t.Fatalf("the log does not tell of the end of %s: %v", s.task, own)
	}
	return own
}

// denials returns what a session was denied, as "OPERATION OBJECT[ -> TARGET]".
func (s session) denials(t *testing.T) (list []string) {
	t.Helper()
	for _, ev := range s.events(t) {
		if ev.Kind == audit.Action && ev.Verdict == "deny" {
			list = append(list, describe(&ev))
		}
	}
	return list
}

func describe(ev *audit.Event) string {
	text := ev.Operation
	for _, o := range []*audit.Object{ev.Object, ev.Target} {
		switch {
		case o == nil:
		case o.Address != "":
			text += fmt.Sprintf(" %s:%d/%s", o.Address, o.Port, o.Protocol)
		default:
			text += strings.TrimRight(" "+o.Path+o.Family, " ")
		}
	}
	return text
}

// write makes a file with the directories above it.
func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}
