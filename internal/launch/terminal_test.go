// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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

// onShell runs `bailiff run` of a script as a job of an interactive shell.
func onShell(t *testing.T, d *daemon, script string) *screen {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is missing: it does the job control")
	}
	job := d.parent(t, Options{Command: []string{"/bin/sh", "-c", script}})
	file := filepath.Join(t.TempDir(), "job")
	text := "exec"
	for _, word := range job.Args {
		text += " '" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	if err := os.WriteFile(file, []byte(text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = append(job.Env, "PS1=> ", "HISTFILE=", "JOB="+file, "TERM=dumb")
	s := onTerminal(t, cmd)
	s.expect(t, "> ", 1)
	s.press(t, "sh $JOB; echo status=$?\n")
	return s
}

func TestSuspendKey(t *testing.T) {
	s := onShell(t, newDaemon(t), "echo rea''dy; read x; echo read: $x; exit 5")
	s.expect(t, "ready", 1)
	for i := 1; i <= 3; i++ {
		s.press(t, "\x1a")
		s.expect(t, "Stopped", i)
		s.press(t, "fg; echo status=$?\n")
		s.expect(t, "sh $JOB\r\n", i) // what fg says that it continues
		time.Sleep(2 * settle)        // a parent that stopped again would show
	}
	s.press(t, "hello\n")
	s.expect(t, "read: hello", 1)
	s.expect(t, "status=5", 1)
	if n := strings.Count(s.text(), "Stopped"); n != 3 {
		t.Errorf("stopped %d times:\n%s", n, s.text())
	}
	s.press(t, "exit\n")
	s.wait()
}

// TestCommandStopsItself is what an editor does on the suspend key.
func TestCommandStopsItself(t *testing.T) {
	s := onShell(t, newDaemon(t), "echo rea''dy; kill -STOP $$; echo on aga''in; exit 6")
	s.expect(t, "ready", 1)
	s.expect(t, "Stopped", 1)
	s.press(t, "fg; echo status=$?\n")
	s.expect(t, "on again", 1)
	s.expect(t, "status=6", 1)
	s.press(t, "exit\n")
	s.wait()
}

// TestShellInsideShell: the command is itself a shell with job control.
func TestShellInsideShell(t *testing.T) {
	s := onShell(t, newDaemon(t), "PS1='inner> ' exec bash --norc --noprofile -i")
	s.expect(t, "inner> ", 1)
	s.press(t, "sleep 100\n")
	time.Sleep(100 * time.Millisecond)
	s.press(t, "\x03")
	s.expect(t, "inner> ", 2)
	s.press(t, "suspend\n")
	s.expect(t, "Stopped", 1)
	s.press(t, "fg; echo status=$?\n")
	s.expect(t, "sh $JOB\r\n", 1)
	s.press(t, "exit 8\n")
	s.expect(t, "status=8", 1)
	s.press(t, "exit\n")
	s.wait()
}
