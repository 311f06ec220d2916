// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// screen is a terminal with a program on it, and everything it showed.
type screen struct {
	terminal *os.File
	cmd      *exec.Cmd

	mu    sync.Mutex
	shown bytes.Buffer
}

func onTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{terminal: f, cmd: cmd}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); f.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// expect waits until a text is shown n times.
func (s *screen) expect(t *testing.T, text string, n int) {
	t.Helper()
	for end := time.Now().Add(patience); strings.Count(s.text(), text) < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in:\n%s", text, s.text())
		}
	}
}

func (s *screen) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.terminal.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) wait() syscall.WaitStatus {
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestTerminalIsTheCommands(t *testing.T) {
	d := newDaemon(t)
	s := onTerminal(t, d.parent(t, Options{Command: []string{"/bin/sh", "-c",
		`stty size; test -t 0 -a -t 1 -a -t 2 && echo is a tty; cut -d' ' -f5,6 /proc/$PPID/stat /proc/$$/stat`}}))
	if ws := s.wait(); ws.ExitStatus() != 0 {
		t.Errorf("%v\n%s", ws, s.text())
	}
	s.expect(t, "is a tty", 1)
	pid := itoa(s.cmd.Process.Pid)
	s.expect(t, pid+" "+pid+"\r\n", 2) // process group and session, of both
	wantContains(t, s.text(), "33 77")
}

func TestInterruptKey(t *testing.T) {
	d := newDaemon(t)
	s := onTerminal(t, d.parent(t, Options{Command: []string{"/bin/sh", "-c",
		"trap 'n=$((n+1))' INT; echo ready; sleep 1; sleep 0.2; echo interrupted $n times; exit 9"}}))
	s.expect(t, "ready", 1)
	s.press(t, "\x03")
	if ws := s.wait(); ws.ExitStatus() != 9 {
		t.Errorf("got %v", ws)
	}
	s.expect(t, "interrupted 1 times", 1)

	for key, sig := range map[string]syscall.Signal{"\x03": unix.SIGINT, "\x1c": unix.SIGQUIT} {
		s := onTerminal(t, d.parent(t, Options{Command: []string{"/bin/sh", "-c", "echo ready; exec sleep 100"}}))
		s.expect(t, "ready", 1)
		time.Sleep(20 * time.Millisecond) // for the exec of sleep
		s.press(t, key)
		if ws := s.wait(); ws.Signal() != sig {
			t.Errorf("%q: got %v\n%s", key, ws, s.text())
		}
	}
}

// onShell runs `bailiff run` as a job in the foreground of a shell, and returns
// what continues it when it stopped.
func onShell(t *testing.T, command ...string) (s *screen, fg func()) {
	t.Helper()
	cmd := newDaemon(t).parent(t, Options{Command: command})
	cmd.Args = append([]string{cmd.Args[0], shellMode, cmd.Path}, cmd.Args[1:]...)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	cmd.ExtraFiles = []*os.File{read}
	return onTerminal(t, cmd), func() {
		if _, err := write.WriteString("fg\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSuspendKey(t *testing.T) {
	s, fg := onShell(t, "/bin/sh", "-c", "echo ready; read x; echo read: $x; exit 5")
	s.expect(t, "ready", 1)
	for i := 1; i <= 3; i++ {
		s.press(t, "\x1a")
		s.expect(t, "stopped", i)
		fg()
		s.expect(t, "continued", i)
		time.Sleep(2 * settle) // a parent that stopped again would show
	}
	s.press(t, "hello\n")
	s.expect(t, "read: hello", 1)
	s.expect(t, "status 5 -1", 1)
	if n := strings.Count(s.text(), "stopped"); n != 3 {
		t.Errorf("stopped %d times:\n%s", n, s.text())
	}
}

// TestCommandStopsItself is what an editor does on the suspend key.
func TestCommandStopsItself(t *testing.T) {
	s, fg := onShell(t, "/bin/sh", "-c", "echo ready; kill -STOP $$; echo on again; exit 6")
	s.expect(t, "stopped", 1)
	fg()
	s.expect(t, "on again", 1)
	s.expect(t, "status 6 -1", 1)
}

func TestKeyKillsAJob(t *testing.T) {
	s, _ := onShell(t, "/bin/sh", "-c", "echo ready; exec cat")
	s.expect(t, "ready", 1)
	s.press(t, "\x03")
	s.expect(t, "status -1 2", 1)
}

// TestShellInsideShell: the command is itself a shell with job control.
func TestShellInsideShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is missing: it is the inner shell")
	}
	s, fg := onShell(t, "env", "PS1=inner> ", "HISTFILE=", "TERM=dumb", bash, "--norc", "--noprofile", "-i")
	s.expect(t, "inner> ", 1)
	s.press(t, "suspend\n")
	s.expect(t, "stopped", 1)
	fg()
	s.expect(t, "inner> ", 2)
	s.press(t, "sh -c 'echo sta\"\"rted; exec sleep 100'\n")
	s.expect(t, "started", 1)
	s.press(t, "\x03")
	s.expect(t, "inner> ", 3)
	eventually(t, "the inner shell ends", func() bool {
		s.press(t, "exit 8\n") // keys just after an interrupt can get lost
		time.Sleep(20 * time.Millisecond)
		return strings.Contains(s.text(), "status 8 -1")
	})
}
