// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// Whoever moves a process into a session's cgroup puts it into the session.
func TestJoinByMove(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/x", root+"/secret/f")
	k.apply(t, rules{files: []string{path("read", root+"/w")}})
	s := k.prepare(t, testSubject)
	number, err := k.AgentNumber(testSubject, testSubject)
	if err != nil {
		t.Fatal(err)
	}
	s.info.Agent = number
	s.release() // it has threads from now on
	s.allowed("open", root+"/secret/f", "r")
	s.allowed("elsewhere", root+"/secret/f") // opened by another thread
	if err := k.AddSession(s.info); err != nil {
		t.Fatal(err)
	}
	s.enter(s.cgroup)
	s.denied("open", root+"/secret/f", "r")
	s.denied("elsewhere", root+"/secret/f")
	s.allowed("open", root+"/w/x", "r")
	s.allowed("elsewhere", root+"/w/x")
	if id, ok, err := k.Labelled(s.pidfd); err != nil || !ok || id != s.info.ID {
		t.Errorf("labelled: %d, %v, %v", id, ok, err)
	}
	// The label binds, wherever the process goes.
	s.enter(filepath.Dir(k.options.Cgroup))
	s.denied("elsewhere", root+"/secret/f")
}

// What is in the sessions' cgroup, and of no known session, may do nothing.
func TestStrangers(t *testing.T) {
	k := basic(t)
	network(t)
	k.apply(t, rules{files: []string{path("read", "/")}})
	for _, where := range []string{"below", "itself", "deeper"} {
		time.Sleep(1100 * time.Millisecond) // the same again would be folded
		s := k.prepare(t, testSubject)
		s.release()
		stream := s.socketOf("stream", "")
		deep := filepath.Join(s.cgroup, "deep")
		if err := os.Mkdir(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(deep) })
		if k.full {
			s.allowed("open", "/etc/passwd", "r")
		}
		s.want(unix.ECONNREFUSED, "connect", stream, "127.0.0.1:1")
		switch where {
		case "below":
			s.enter(s.cgroup)
		case "itself":
			s.enter(k.options.Cgroup)
		case "deeper":
			s.enter(deep)
		}
		if k.full {
			s.denied("open", "/etc/passwd", "r")
		}
		s.denied("connect", s.socketOf("stream", ""), "127.0.0.1:1")
		s.denied("sendto", s.socketOf("dgram", ""), "127.0.0.1:1")
		told := false
		for _, ev := range k.events(t) {
			told = told || ev.Reason == "no-session" && ev.Verdict == "deny"
		}
		if !told {
			t.Errorf("%s: no event of a stranger", where)
		}
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// A process that is born in a session's cgroup, of one outside, is of the session.
func TestJoinByClone(t *testing.T) {
	k := full(t)
	k.apply(t, rules{files: []string{path("read, execute", "/usr"), path("read, execute", "/lib64"), path("read", "/etc/ld.so.cache"), path("read, write", "/dev/null")}})
	s := k.prepare(t, testSubject)
	number, err := k.AgentNumber(testSubject, testSubject)
	if err != nil {
		t.Fatal(err)
	}
	s.info.Agent = number
	if err := k.AddSession(s.info); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(s.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	born := func(dir *os.File, file string) *exec.Cmd {
		c := exec.Command("/usr/bin/cat", file)
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		return c
	}
	for file, want := range map[string]bool{"/usr/bin/cat": true, "/etc/passwd": false} {
		if err := born(dir, file).Run(); (err == nil) != want {
			t.Errorf("cat %s: %v", file, err)
		}
	}
	// One that is born in a cgroup of nobody's is left alone, and has no label to be looked at.
	elsewhere, err := os.MkdirTemp(kerneltest.CgroupRoot(t), "bailiff-born-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(elsewhere)
	other, err := os.Open(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c, pidfd := born(other, "/etc/passwd"), -1
	c.Args = []string{"cat", "/etc/passwd", "-"}
	c.SysProcAttr.PidFD = &pidfd
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if n, err := out.Read(make([]byte, 100)); n == 0 {
		t.Errorf("outside every session: %v", err)
	}
	if _, labelled, err := k.Labelled(pidfd); err != nil || labelled {
		t.Errorf("a process of no session has a label: %v, %v", labelled, err)
	}
	in.Close()
	if err := c.Wait(); err != nil && err.Error() != "signal: broken pipe" {
		t.Error(err)
	}
}

// A root session has the capabilities that its policy names, and no others.
func TestCapabilities(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/w/x")
	if err := os.Chown(root+"/w/x", 1000, 1000); err != nil {
		t.Fatal(err)
	}
	files := []string{path("read, write, create", root+"/w")}
	none, chown := policy.Capabilities(0), policy.Capabilities(1<<unix.CAP_CHOWN)
	s := k.start(t, rules{files: files, capabilities: &none})
	s.want(unix.EPERM, "chown", root+"/w/x")
	s.want(unix.EPERM, "chroot", root)
	s.denied("mknod", root+"/w/n", "char")
	told := false
	for _, ev := range k.events(t) {
		told = told || ev.Operation == "capability" && ev.Verdict == "deny"
	}
	if !told {
		t.Error("no event of a denied capability")
	}
	s.k.apply(t, rules{files: files, capabilities: &chown})
	s.allowed("chown", root+"/w/x")
	s.want(unix.EPERM, "chroot", root)
}

// A session has the shared memory that it made, and nobody else's.
func TestSharedMemory(t *testing.T) {
	k := full(t)
	outside, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmCtl(outside, unix.IPC_RMID, nil)
	s := k.start(t, rules{})
	other := k.session(t, testSubject)
	s.denied("shmat", outside)
	own := s.allowed("shmget").Value
	s.allowed("shmat", own)
	other.denied("shmat", own)
	told := false
	for _, ev := range k.events(t) {
		told = told || ev.Operation == "ipc" && ev.Verdict == "deny"
	}
	if !told {
		t.Error("no event of denied shared memory")
	}
	s.allowed("shmrm", own)
}

// Device nodes count where the kernel puts them, and block devices nowhere.
func TestDevices(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	for name, device := range map[string][3]uint32{
		"null": {unix.S_IFCHR, 1, 3}, "mem": {unix.S_IFCHR, 1, 1}, "kmsg": {unix.S_IFCHR, 1, 11}, "loop": {unix.S_IFBLK, 7, 0},
	} {
		if err := unix.Mknod(filepath.Join(root, name), device[0]|0o666, int(unix.Mkdev(device[1], device[2]))); err != nil {
			t.Fatal(err)
		}
	}
	s := k.start(t, rules{files: []string{path("read, write", root), path("read, write", "/dev")}})
	s.allowed("open", root+"/null", "rw")
	s.allowed("open", "/dev/null", "rw")
	s.allowed("open", "/dev/cpu_dma_latency", "r")
	s.denied("open", root+"/kmsg", "r")
	s.denied("open", root+"/mem", "r")
	s.denied("open", "/dev/mem", "r")
	s.denied("open", root+"/loop", "r")
	told := 0
	for _, ev := range k.events(t) {
		if ev.Reason == "device" {
			told++
		}
	}
	if told != 4 {
		t.Errorf("%d events of refused devices, want 4", told)
	}
}
