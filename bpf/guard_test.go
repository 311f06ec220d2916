// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// What reaches outside the session is refused to root too, whatever the policy.
func TestGuard(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/a/f", root+"/b/f")
	outsider := exec.Command("sleep", "60")
	if err := outsider.Start(); err != nil {
		t.Fatal(err)
	}
	defer outsider.Wait()
	defer outsider.Process.Kill()
	everything := rules{files: []string{path("read, write, create, delete, execute", "/")}, mode: "audit"}
	s := k.start(t, everything)
	other := k.session(t, testSubject)
	pid := fmt.Sprint(outsider.Process.Pid)
	s.want(unix.EPERM, "kill", pid, 0)
	s.want(unix.EPERM, "kill", pid, 9)
	s.want(unix.EPERM, "seize", pid)
	s.want(unix.EPERM, "vmread", pid)
	s.want(unix.EPERM, "getfd", pid)
	s.denied("open", "/proc/"+pid+"/mem", "r")
	s.denied("open", "/proc/"+pid+"/root/etc/passwd", "r")
	s.want(unix.EPERM, "kill", other.allowed("pid").Value, 9)
	s.want(unix.EPERM, "seize", other.allowed("pid").Value)
	s.want(unix.EPERM, "traceme")
	s.want(unix.EPERM, "mount", "tmpfs", root+"/a", "tmpfs", "")
	s.want(unix.EPERM, "mount", root+"/a", root+"/b", "", "bind")
	s.want(unix.EPERM, "mount", root+"/a", root+"/b", "", "move")
	s.want(unix.EPERM, "mount", "", "/", "", "remount")
	s.want(unix.EPERM, "umount", "/dev/shm")
	s.want(unix.EPERM, "pivot", root+"/a", root+"/a")
	s.want(unix.EPERM, "fsopen")
	s.want(unix.EPERM, "movemount", root+"/a", root+"/b")
	if got := s.allowed("run", "/usr/bin/unshare", "-U", "true").Value; !strings.Contains(got, "Operation not permitted") {
		t.Errorf("unshare -U: %q", got)
	}
	s.want(unix.EPERM, "bpf")
	s.want(unix.EPERM, "sqpoll")

	child := s.allowed("child").Value
	s.allowed("kill", child, 0)
	s.allowed("vmread", child)
	s.allowed("seize", child)
	s.allowed("kill", child, 9)
	told := map[string]bool{}
	for _, ev := range k.settled(t) { // the test's own libraries try bpf when they start
		if ev.Kind == "guard" && ev.Verdict == "deny" && ev.Reason == "privilege" {
			told[ev.Operation] = true
			if ev.Operation == "signal" && ev.Peer == 0 {
				t.Errorf("signal: %+v", ev)
			}
		}
	}
	for _, op := range []string{"signal", "ptrace", "mount", "namespace", "bpf"} {
		if !told[op] {
			t.Errorf("no event of a denied %s", op)
		}
	}
	if err := outsider.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the process outside: %v", err)
	}
}

// Whatever a process starts is confined like itself.
func TestLabelInherited(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/x", root+"/secret/f")
	s := k.start(t, rules{files: append(libraries(),
		path("read, execute", "/usr/bin"), path("read, write, create", root+"/w"), path("read, write", "/dev/null"))})
	s.denied("threadopen", root+"/secret/f", "r")
	s.allowed("threadopen", root+"/w/x", "r")

	pidfd, err := unix.PidfdOpen(number(s.allowed("child").Value), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if id, ok, err := k.Labelled(pidfd); err != nil || !ok || id != s.info.ID {
		t.Errorf("the child's session is %d, %v, %v, want %d", id, ok, err, s.info.ID)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if _, ok, err := k.Labelled(self); ok || err != nil {
		t.Errorf("the test itself has a label, or %v", err)
	}

	for i, command := range []string{
		"cat %s/secret/f",
		"exec cat %s/secret/f",
		"(cat %s/secret/f)",
		"setsid -w cat %s/secret/f",
		"sh -c 'sh -c \"cat %s/secret/f\"'",
		"(setsid cat %s/secret/f &) ; sleep 0.1",
		"nice cat %s/secret/f",
	} {
		out := fmt.Sprint(root, "/w/out", i)
		s.allowed("run", "/usr/bin/sh", "-c", "("+fmt.Sprintf(command, root)+") >"+out+" 2>&1")
		text := ""
		for range 100 {
			b, err := os.ReadFile(out)
			if text = string(b); err == nil && text != "" {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !strings.Contains(text, "Permission denied") {
			t.Errorf("%s: %q", command, text)
		}
	}
}
