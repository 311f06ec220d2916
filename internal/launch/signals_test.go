// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

// running is `bailiff run` whose command printed its process id and the word
// ready.
type running struct {
	cmd   *exec.Cmd
	child int
	in    io.WriteCloser
	out   *bufio.Reader
}

// begin starts a shell script. It runs in a process group of its own, as a
// shell's background job.
func begin(t *testing.T, script string) *running {
	t.Helper()
	cmd := newDaemon(t).parent(t, Options{Command: []string{"/bin/sh", "-c", "echo $$; " + script}})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r := &running{cmd: cmd, in: in, out: bufio.NewReader(pipe)}
	for _, c := range r.line(t) {
		r.child = r.child*10 + int(c-'0')
	}
	return r
}

func (r *running) line(t *testing.T) string {
	t.Helper()
	line, err := r.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read the command's output: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *running) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// eventually waits until a process is in one of the states.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func stopped(pid int) bool { return (&child{pid: pid}).stopped() }

func TestSignalsArePassedOn(t *testing.T) {
	for _, sig := range []struct {
		name string
		sig  syscall.Signal
	}{{"TERM", unix.SIGTERM}, {"HUP", unix.SIGHUP}, {"USR1", unix.SIGUSR1}, {"USR2", unix.SIGUSR2}, {"INT", unix.SIGINT}, {"QUIT", unix.SIGQUIT}, {"ALRM", unix.SIGALRM}} {
		r := begin(t, "trap 'echo got; exit 9' "+sig.name+"; echo ready; while :; do sleep 0.01; done")
		r.line(t)
		if err := r.cmd.Process.Signal(sig.sig); err != nil {
			t.Fatal(err)
		}
		if got := r.line(t); got != "got" {
			t.Errorf("%s: %q", sig.name, got)
		}
		if ws := r.wait(t); ws.ExitStatus() != 9 {
			t.Errorf("%s: %v", sig.name, ws)
		}
	}
}

func TestUnhandledSignalEndsBoth(t *testing.T) {
	r := begin(t, "echo ready; exec sleep 100")
	r.line(t)
	r.cmd.Process.Signal(unix.SIGTERM)
	if ws := r.wait(t); ws.Signal() != unix.SIGTERM {
		t.Errorf("got %v", ws)
	}
}

func TestKillingTheParentKillsTheCommand(t *testing.T) {
	r := begin(t, "echo ready; exec sleep 100")
	r.line(t)
	r.cmd.Process.Kill()
	r.wait(t)
	eventually(t, "the command is gone", func() bool {
		stat, err := os.ReadFile("/proc/" + itoa(r.child) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestFollowsTheCommandsStop(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN} {
		r := begin(t, "echo ready; read x; exit 5")
		r.line(t)
		if err := unix.Kill(r.child, sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both stopped", func() bool { return stopped(r.child) && stopped(r.cmd.Process.Pid) })
		if err := unix.Kill(r.cmd.Process.Pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both go on", func() bool { return !stopped(r.child) && !stopped(r.cmd.Process.Pid) })
		r.in.Close()
		if ws := r.wait(t); ws.ExitStatus() != 5 {
			t.Errorf("%v: %v", sig, ws)
		}
	}
}

func TestContinuedCommandAlone(t *testing.T) {
	r := begin(t, "echo ready; kill -STOP $$; exit 6")
	r.line(t)
	eventually(t, "both stopped", func() bool { return stopped(r.child) && stopped(r.cmd.Process.Pid) })
	unix.Kill(-r.cmd.Process.Pid, unix.SIGCONT) // as a shell's bg does
	if ws := r.wait(t); ws.ExitStatus() != 6 {
		t.Errorf("got %v", ws)
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		trap string
		want uint64
	}{
		{"", 0},
		{"trap '' INT HUP", 7}, // and QUIT, as for background jobs
	} {
		cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", "sed -n 's/^SigIgn:.//p' /proc/self/status"}})
		cmd.Args = append([]string{"sh", "-c", tt.trap + "\nexec \"$@\"", "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		r := finish(t, cmd)
		ignored, err := strconv.ParseUint(strings.TrimSpace(r.stdout), 16, 64)
		// The real-time signals are the C library's and make's own business.
		if err != nil || ignored&(1<<31-1) != tt.want {
			t.Errorf("%q: %+v, want %x", tt.trap, r, tt.want)
		}
	}
}
