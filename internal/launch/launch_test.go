// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func TestStatusIsTheCommands(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		script string
		code   int
		signal syscall.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 7", 7, 0},
		{"exit 255", 255, 0},
		{"kill -TERM $$", -1, syscall.SIGTERM},
		{"kill -KILL $$", -1, syscall.SIGKILL},
		{"kill -QUIT $$", -1, syscall.SIGQUIT},
		{"kill -SEGV $$", -1, syscall.SIGSEGV},
		{"kill -ABRT $$", -1, syscall.SIGABRT},
		{"kill -INT $$", -1, syscall.SIGINT},
		{"kill -PIPE $$", -1, syscall.SIGPIPE},
	} {
		r := d.shell(t, tt.script)
		if r.code != tt.code || r.signal != tt.signal || r.stdout+r.stderr != "" {
			t.Errorf("%s: got %+v", tt.script, r)
		}
	}
}

func TestFailuresToLaunch(t *testing.T) {
	d := newDaemon(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	plain := write("plain", "#!/bin/sh\n", 0o644)
	badInterpreter := write("bad", "#!/no/such/interpreter\n", 0o755)
	garbage := write("garbage", "\x7fELFgarbage", 0o755)
	for _, tt := range []struct {
		name    string
		command []string
		socket  string
		code    int
		stderr  string
	}{
		{"not in PATH", []string{"no-such-command"}, "", 127, "no-such-command: command not found in PATH"},
		{"no file", []string{"/no/such/file"}, "", 127, "/no/such/file: command not found"},
		{"control characters", []string{"/no\n\x1b[2J"}, "", 127, `/no\n\x1b[2J: command not found`},
		{"mode", []string{plain}, "", 126, "cannot be executed: permission denied"},
		{"directory", []string{dir}, "", 126, "is a directory"},
		{"interpreter", []string{badInterpreter}, "", 127, "interpreter or loader was not found"},
		{"empty", []string{""}, "", 127, "empty string"},
		{"no daemon", []string{"true"}, dir + "/none.sock", 125, "connect to bailiffd at " + dir + "/none.sock: no such file or directory: start it"},
		{"nobody listens", []string{"true"}, plain, 125, "connection refused: start it"},
		{"none", nil, "", 125, "no command"},
	} {
		r := d.run(t, Options{Command: tt.command, AdminSocket: tt.socket})
		if r.code != tt.code || !strings.Contains(r.stderr, tt.stderr) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("%s: got %+v", tt.name, r)
		}
	}
	// Not a program and not text: execvp gives it to the shell, which says so.
	if r := d.run(t, Options{Command: []string{garbage}}); r.code == 0 || r.stderr == "" {
		t.Errorf("garbage: got %+v", r)
	}
}

func TestRefusal(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		err    error
		stderr string
	}{
		{connect.NewError(connect.CodeNotFound, errors.New("no policy names tester\n: apply one")), `launch tester: bailiffd refused: no policy names tester\n: apply one`},
		{connect.NewError(connect.CodeUnavailable, errors.New("stopping")), "bailiffd does not answer: stopping"},
		{connect.NewError(connect.CodeUnimplemented, errors.New("?")), "of one version"},
	} {
		d.refuse = tt.err
		r := d.shell(t, "echo ran")
		if r.code != 125 || r.stdout != "" || !strings.Contains(r.stderr, tt.stderr) {
			t.Errorf("%v: got %+v", tt.err, r)
		}
	}
}

func TestRequestAndPeer(t *testing.T) {
	d := newDaemon(t)
	r := d.run(t, Options{
		Agent: "spiffe://local/agent/x", Task: "T-1", Context: map[string]string{"ticket": "CHG-1"},
		Command: []string{"/bin/sh", "-c", "echo $$; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; sed -n 's/^Max core file size *//p' /proc/self/limits", "a\xffb"},
	})
	l := d.last(t)
	if l.request.GetAgent() != "spiffe://local/agent/x" || l.request.GetTask() != "T-1" || l.request.GetContext()["ticket"] != "CHG-1" || len(l.request.GetCommand()) != 4 {
		t.Errorf("request: %v", l.request)
	}
	lines := strings.Fields(r.stdout)
	if len(lines) != 8 || lines[0] != itoa(int(l.peer.Pid)) {
		t.Fatalf("peer %d, command printed %q: the daemon labelled another process", l.peer.Pid, lines)
	}
	if lines[2] != "1" || lines[4] != "2" || lines[5] != "1" || lines[6] != "1" {
		t.Errorf("no_new_privs, seccomp mode, core limit: %q", lines)
	}
}

func TestEnvironmentOfTheCommand(t *testing.T) {
	d := newDaemon(t)
	d.answer.DropEnvironment = []string{"*_TOKEN", "AWS_*"}
	d.answer.SetEnvironment = map[string]string{"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
	cmd := d.parent(t, Options{Command: []string{"env"}})
	cmd.Env = []string{"PATH=/nowhere", "GH_TOKEN=x", "AWS_KEY=y", "KEEP=z", "LANG=de"}
	r := finish(t, cmd)
	want := "KEEP=z\nBAILIFF_AGENT_SOCKET=/run/bailiff/agent.sock\nBAILIFF_SESSION=s-1\nLANG=C.UTF-8\nPATH=/usr/bin:/bin\n"
	if r.stdout != want || r.code != 0 {
		t.Errorf("got %+v, want %q", r, want)
	}
}

func TestNothingIsInherited(t *testing.T) {
	d := newDaemon(t)
	cmd := d.parent(t, Options{Command: []string{"ls", "/proc/self/fd"}})
	extra, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	cmd.ExtraFiles = []*os.File{extra, extra, extra}
	if r := finish(t, cmd); r.stdout != "0\n1\n2\n3\n" { // 3 is the listing itself
		t.Errorf("got %+v", r)
	}
}

func TestStandardDescriptorOfTheKernel(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	counter := os.NewFile(uintptr(fd), "eventfd")
	defer counter.Close()
	cmd := newDaemon(t).parent(t, Options{Command: []string{"echo", "ran"}})
	cmd.Stdin = counter
	if r := finish(t, cmd); r.code != 125 || r.stdout != "" || !strings.Contains(r.stderr, "standard input is anon_inode:[eventfd]") {
		t.Errorf("got %+v", r)
	}
}

func TestLimitsAreTheCallers(t *testing.T) {
	cmd := newDaemon(t).parent(t, Options{Command: []string{"/bin/sh", "-c", "ulimit -S -n; umask; pwd"}})
	cmd.Args = append([]string{"sh", "-c", "ulimit -S -n 256; umask 031; cd /usr; exec \"$@\"", "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	if r := finish(t, cmd); r.stdout != "256\n0031\n/usr\n" {
		t.Errorf("got %+v", r)
	}
}

// TestInheritedPersonality: what is mapped to be read stays that, whoever wanted
// it otherwise before the session; the rest of it is kept.
func TestInheritedPersonality(t *testing.T) {
	setarch, err := exec.LookPath("setarch")
	if err != nil {
		t.Skip("setarch is missing")
	}
	cmd := newDaemon(t).parent(t, Options{Command: []string{"cat", "/proc/self/personality"}})
	cmd.Args = append([]string{"setarch", "-X", "-R", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = setarch
	if r := finish(t, cmd); r.stdout != "00040000\n" {
		t.Errorf("got %+v", r)
	}
}

func TestEndsBeforeTheSession(t *testing.T) {
	d := newDaemon(t)
	d.meddle = func(pid int) { unix.Kill(pid, unix.SIGKILL) }
	if r := d.shell(t, "echo ran"); r.code != 125 || r.stdout != "" || !strings.Contains(r.stderr, "killed before the session began") {
		t.Errorf("killed: %+v", r)
	}
	d.meddle = func(pid int) { unix.Kill(pid, unix.SIGINT) }
	if r := d.shell(t, "echo ran"); r.signal != unix.SIGINT || r.stdout+r.stderr != "" {
		t.Errorf("interrupted: %+v", r)
	}
}

func TestNobodyReadsStandardError(t *testing.T) {
	d := newDaemon(t)
	d.answer.Warnings = []string{"unread"}
	d.summary.Denials = []*controlv1.Denial{{Operation: "open", Object: "/x", Count: 1}}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	defer write.Close()
	cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", "exit 4"}})
	cmd.Stderr = write
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("got %v", err)
	}
}

func TestWarningsComeFirst(t *testing.T) {
	d := newDaemon(t)
	d.answer.Warnings = []string{"rule p/files/1 is not\x1b[31m enforced"}
	r := d.run(t, Options{Quiet: true, Command: []string{"/bin/sh", "-c", "echo started >&2"}})
	if want := "bailiff: warning: rule p/files/1 is not\\x1b[31m enforced\nstarted\n"; r.stderr != want {
		t.Errorf("got %q, want %q", r.stderr, want)
	}
}

func TestSummary(t *testing.T) {
	d := newDaemon(t)
	if r := d.shell(t, "exit 3"); r.stderr != "" {
		t.Errorf("nothing denied: %q", r.stderr)
	}
	for range 12 {
		d.summary.Denials = append(d.summary.Denials, &controlv1.Denial{
			Operation: "open", Object: `/w/a\nb`, Count: 4, Rule: "p/files/2", Advice: "files: [{path: /w, allow: [read]}]"})
	}
	d.summary.Dropped = 2
	r := d.shell(t, "exit 3")
	if r.code != 3 || strings.Count(r.stderr, `open  /w/a\nb (4 times) by rule p/files/2`) != 10 || strings.Count(r.stderr, "files: [{path: /w, allow: [read]}]") != 1 {
		t.Errorf("got %+v", r)
	}
	wantContains(t, r.stderr, "denied in session s-1:", "and 2 more: bailiff tail --session s-1", "2 events were lost")
	if r := d.run(t, Options{Quiet: true, Command: []string{"true"}}); r.stderr != "" {
		t.Errorf("--quiet: %q", r.stderr)
	}
}

func TestScriptWithoutInterpreter(t *testing.T) {
	d := newDaemon(t)
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("echo got $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if r := d.run(t, Options{Command: []string{file, "it"}}); r.stdout != "got it\n" {
		t.Errorf("got %+v", r)
	}
}

func TestStubAlone(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := newDaemon(t).parent(t, Options{})
	cmd.Args = []string{self, stubMode}
	if r := finish(t, cmd); r.code != 125 || !strings.Contains(r.stderr, "use `bailiff run`") {
		t.Errorf("got %+v", r)
	}
}
