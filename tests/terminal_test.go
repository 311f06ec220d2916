// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// testTerminal runs sessions on a terminal, as a user at a shell does.
func testTerminal(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	write(t, filepath.Join(h.dir, "\x1b[31my"), "secret")
	run := "bailiff run --agent worker -- /bin/bash -c "
	for _, x := range []struct{ name, script, press, want string }{
		{"is one", run + `'test -t 0 && test -t 1 && test -t 2 && stty size && tty'`, "", "33 77\r\n/dev/pts/"},
		{"interrupt", "trap : INT; " + run + `'echo ready; sleep 60'; echo status $?`, "\x03", "status 130"},
		// Not bash: it ignores this one.
		{"quit", "trap : QUIT; bailiff run --agent worker -- /bin/sh -c " + `'echo ready; sleep 60'; echo status $?`, "\x1c", "status 131"},
		{"caught", "trap : INT; " + run + `'trap "exit 7" INT; echo ready; sleep 60 & wait'; echo status $?`, "\x03", "status 7"},
		{"input", run + `'echo ready; read x; echo "got $x"'`, "word\n", "got word"},
		{"control characters", "bailiff run --agent worker -- /bin/bash -c 'cat \"$0\"' " + `"$HOME"/$'\e[31my'`, "", `/\x1b[31my`},
	} {
		t.Run(x.name, func(t *testing.T) {
			if strings.Contains(x.want, `\x1b`) && !h.full {
				return // the basic tier tells of no file
			}
			onTerminal(t, h, x.script, x.press, x.want)
		})
	}
}

// onTerminal runs a script on a terminal of 33 lines, presses keys once it says
// ready, and waits for a text.
func onTerminal(t *testing.T, h *host, script, press, want string) {
	t.Helper()
	c := h.command()
	c.Env = append(c.Env, "HOME="+h.dir)
	c.Path, c.Args = "/bin/bash", []string{"bash", "-c", script}
	for i, v := range c.Env {
		c.Env[i] = strings.Replace(v, "PATH=", "PATH="+h.bin+":", 1)
	}
	f, err := pty.StartWithSize(c, &pty.Winsize{Rows: 33, Cols: 77})
	must(t, err)
	defer f.Close()
	shown := &logBuffer{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 4096); ; {
			n, err := f.Read(buf)
			shown.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	if press != "" {
		if !eventually(20*time.Second, func() bool { return strings.Contains(shown.String(), "ready") }) {
			t.Errorf("never ready: %q", shown)
		}
		_, err := f.WriteString(press)
		must(t, err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		c.Process.Kill()
		t.Errorf("it does not end")
	}
	c.Wait()
	if !strings.Contains(shown.String(), want) {
		t.Errorf("the terminal does not show %q: %q", want, shown)
	}
}

// testLaunch launches as other users.
func testLaunch(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	as := func(uid, gid int, args ...string) result {
		c := h.command(args...)
		flags := []string{"setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(gid), "--clear-groups", c.Path}
		c.Args = append(flags, c.Args[1:]...)
		var err error
		c.Path, err = exec.LookPath("setpriv")
		must(t, err)
		return finish(t, c)
	}
	id := []string{"run", "--agent", "worker", "--", "/usr/bin/id", "-u"}
	if r := as(65534, launchGroup, id...).ok(t); strings.TrimSpace(r.stdout) != "65534" {
		t.Errorf("id -u printed %q", r.stdout)
	}
	as(65534, 65534, id...).ended(t, 125).says(t, "may not launch", "`launch`")
	as(65534, launchGroup, "run", "--agent", "boss", "--", "/bin/true").ended(t, 125).says(t, "may not launch")
	for _, args := range [][]string{{"policy", "list"}, {"sessions", "list"}, {"policy", "delete", "simple"}} {
		as(65534, launchGroup, args...).ended(t, 1).says(t, "no admin", "sudo")
	}
	sudo := h.command(id...)
	sudo.Env = append(sudo.Env, "SUDO_UID=65534", "SUDO_GID=65534", "SUDO_USER=nobody", "SUDO_COMMAND=x")
	if r := finish(t, sudo).ok(t); strings.TrimSpace(r.stdout) != "65534" {
		t.Errorf("under sudo, id -u printed %q", r.stdout)
	}
	testEnvironment(t, h)
	for code, command := range map[int][]string{
		0: {"/bin/true"}, 3: {"/bin/bash", "-c", "exit 3"}, 143: {"/bin/bash", "-c", "kill -TERM $$"},
		127: {"no-such-program"}, 126: {h.work},
	} {
		r := h.run(t, "worker", command...)
		if code == 143 {
			code = -1 // it ends by the same signal
		}
		r.ended(t, code)
	}
	h.bailiff(t, "run", "--", "/bin/true").ended(t, 125).says(t, "--agent")
	h.bailiff(t, "run", "--agent", "worker").ended(t, 125).says(t, "needs a command")
	h.bailiff(t, "sessions", "stop").ended(t, 2)
}

// testEnvironment looks at what becomes of variables.
func testEnvironment(t *testing.T, h *host) {
	h.enforce(t, simplePolicy+"  environment: {set: {ADDED: yes it is}}\n")
	c, task := h.prepareRun("worker", "/usr/bin/env")
	c.Env = append(c.Env, "MY_TOKEN=t", "AWS_PROFILE=p", "MY_SECRET=s", "PLAIN=kept", "ADDED=no")
	out := finish(t, c).ok(t).stdout
	for _, line := range []string{"PLAIN=kept", "ADDED=yes it is", "BAILIFF_SESSION=s-"} {
		if !strings.Contains("\n"+out, "\n"+line) {
			t.Errorf("%s: the environment lacks %s:\n%s", task, line, out)
		}
	}
	for _, name := range []string{"MY_TOKEN", "AWS_PROFILE", "MY_SECRET", "ADDED=no"} {
		if strings.Contains(out, name) {
			t.Errorf("the environment has %s", name)
		}
	}
}
