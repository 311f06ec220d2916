// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/cgroup"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat("42 (a) b) c) S 7 40 39 34819 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 99 1 2")
	want := stat{state: "S", parent: 7, group: 40, session: 39, terminal: 136<<8 | 3, flags: 4194560, threads: 3, start: 99}
	if err != nil || s != want {
		t.Errorf("%+v %v, want %+v", s, err, want)
	}
	if _, err := parseStat("42 (a) S 7"); err == nil {
		t.Error("a short line was read")
	}
}

// shellTree starts a shell that runs a script, says a line and goes on for ever, and
// returns its pid.
func shellTree(t *testing.T, script string) int {
	t.Helper()
	c := exec.Command("/bin/bash", "-c", script+"\necho ready; while :; do sleep 0.02; done")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Dir = "/"
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pids, err := allPIDs()
		for _, pid := range pids {
			if s, err := processStat(pid); err == nil && s.session == c.Process.Pid {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
			}
		}
		if _ = c.Wait(); err != nil { // it was killed
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	return c.Process.Pid
}

// standing stops a tree, which goes on when the test ends.
func standing(t *testing.T, pid int) *tree {
	t.Helper()
	kerneltest.RequireRoot(t)
	parent, err := cgroup.Open(fmt.Sprintf("bailiff-adopt-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = parent.Remove() }) // another tree may still be there
	before, err := parent.Directory(pid)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := stopTree(parent, fmt.Sprintf("adopt-%d", pid), pid, nil, func(int) error { return nil })
	t.Cleanup(func() {
		if err := tree.release(); err != nil {
			t.Error(err)
		}
		if after, err := parent.Directory(pid); err != nil || after != before {
			t.Errorf("it is in %s, was in %s: %v", after, before, err)
		}
		if groups, err := parent.AllBeside("adopt-"); err != nil || len(groups) > 0 {
			t.Errorf("%v are left: %v", groups, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// A tree that forks without end, and whose processes lose their parents, is stopped
// whole: nothing of it is born any more.
func TestStopTree(t *testing.T) {
	pid := shellTree(t, "sleep 100 & (while :; do (sleep 0.03 & ); done) & sleep 0.1")
	tree := standing(t, pid)
	if tree.members[0].pid != pid || len(tree.members) < 3 {
		t.Errorf("the tree has %d members", len(tree.members))
	}
	again, err := tree.addDescendants(false)
	if err != nil || again {
		t.Errorf("there are new ones: %v", err)
	}
}

// reportOf returns the verdicts of a kind by what it is about, without the number of
// the descriptor.
func reportOf(x *inspection, kind string) map[string]string {
	verdicts := map[string]string{}
	for _, line := range x.report {
		if line.Kind == kind {
			_, what, ok := strings.Cut(line.What, ": ")
			if !ok {
				what = line.What
			}
			verdicts[what] = line.Verdict
		}
	}
	return verdicts
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"open", "secret", "deleted", "both"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	pid := shellTree(t, strings.NewReplacer("DIR", dir, "PORT", fmt.Sprint(port)).Replace(
		"exec 3< DIR/open 4< DIR/deleted 5<> /dev/tcp/127.0.0.1/PORT; rm DIR/deleted; (exec 6< DIR/secret 7<> DIR/both; echo > DIR/up; sleep 100) & until test -s DIR/up; do sleep 0.01; done"))
	r := judged(t, fmt.Sprintf("  files: [{path: /, allow: [read, execute]}, {path: /dev/null, allow: [read, write]}, {path: %s/secret, deny: [read]}]\n", dir))
	tree := standing(t, pid)
	x, err := inspect(tree, r)
	if err != nil {
		t.Fatal(err)
	}
	defer x.sockets.close()
	files := reportOf(x, kindFile)
	for name, want := range map[string]string{"open": verdictFine, "deleted (deleted)": verdictFine, "secret": verdictKill, "both": verdictKill} {
		if got := files[filepath.Join(dir, name)]; got != want {
			t.Errorf("%s: %q, want %q: %v", name, got, want, files)
		}
	}
	if got := reportOf(x, kindSocket)[fmt.Sprintf("TCP connected to 127.0.0.1:%d", port)]; got != verdictClosed {
		t.Errorf("the connection: %q", got)
	}
	if maps := reportOf(x, kindMapping); len(maps) < 2 || slices.ContainsFunc(x.report, func(p *controlv1.Predating) bool {
		return p.Kind == kindMapping && p.Verdict != verdictFine
	}) {
		t.Errorf("the mappings: %v", maps)
	}
	if x.forbidden[pid] || len(x.forbidden) == 0 {
		t.Errorf("forbidden: %v", x.forbidden)
	}
	if text := x.refusal(controlv1.OnForbidden_ON_FORBIDDEN_REFUSE); !strings.Contains(text, "forbids") {
		t.Errorf("refused: %q", text)
	}
	if text := x.refusal(controlv1.OnForbidden_ON_FORBIDDEN_KILL); text != "" {
		t.Errorf("refused: %q", text)
	}
	testKillForbidden(t, x)
}

// testKillForbidden kills what is forbidden while it stands still.
func testKillForbidden(t *testing.T, x *inspection) {
	before := len(x.tree.left())
	for _, m := range x.tree.members {
		if !x.forbidden[m.pid] {
			continue
		}
		if err := x.tree.kill(m); err != nil {
			t.Error(err)
		}
		if s, err := processStat(m.pid); err == nil && !s.ended() {
			t.Errorf("process %d lives", m.pid)
		}
	}
	if left := len(x.tree.left()); left != before-len(x.forbidden) {
		t.Errorf("%d are left of %d", left, before)
	}
	if err := x.sockets.destroy(); err != nil {
		t.Error(err)
	}
}

func TestPathsOfTheTree(t *testing.T) {
	x := &inspection{tree: &tree{byPID: map[int]*member{42: {}}}}
	for path, want := range map[string]string{
		"/proc/42": "/proc/self", "/proc/42/fd/3": "/proc/self/fd/3", "/proc/43/fd": "/proc/43/fd", "/proc": "/proc", "/procs/42": "/procs/42",
	} {
		if got := x.self(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// An io_uring cannot be made safe, open or mapped.
func TestInspectRing(t *testing.T) {
	var parameters [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 {
		t.Skip(kerneltest.SkipReason + "io_uring: " + errno.Error())
	}
	defer unix.Close(int(fd))
	x := &inspection{tree: &tree{byPID: map[int]*member{}}, forbidden: map[int]bool{}, ruleset: &policy.Ruleset{}}
	f := descriptor{number: int(fd), link: fmt.Sprintf("/proc/self/fd/%d", fd)}
	var err error
	if f.what, err = os.Readlink(f.link); err == nil {
		err = x.descriptor(os.Getpid(), &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text := x.refusal(controlv1.OnForbidden_ON_FORBIDDEN_KILL); !strings.Contains(text, "cannot be made safe") {
		t.Errorf("refused: %q", text)
	}
}
