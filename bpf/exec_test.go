// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// libraries are what a dynamic program needs to be loaded.
func libraries() []string {
	return []string{path("read, execute", "/usr/lib"), path("read, execute", "/usr/lib64"), path("read", "/etc/ld.so.cache")}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	image, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	touch(to)
	if err := os.WriteFile(to, image, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	for _, dir := range []string{"/x", "/r", "/rx"} {
		copyProgram(t, "/usr/bin/true", root+dir+"/true")
		touch(root + dir + "/script")
		if err := os.WriteFile(root+dir+"/script", []byte("#!"+root+"/x/true\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(root+dir+"/script", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/x/script2", []byte("#!"+root+"/r/true\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := k.start(t, rules{files: append(libraries(),
		path("execute", root+"/x"), path("read", root+"/r"), path("read, execute", root+"/rx"))})
	exits := func(status, op string, args ...any) {
		t.Helper()
		if r := s.allowed(op, args...); !strings.HasPrefix(r.Value, status+" ") {
			t.Errorf("%s %q: exit status and output %q, want %s", op, args, r.Value, status)
		}
	}
	exits("0", "run", root+"/x/true")
	exits("0", "run", root+"/rx/true")
	s.denied("run", root+"/r/true")
	exits("0", "run", root+"/x/script")
	s.denied("run", root+"/r/script")
	s.denied("run", root+"/x/script2")
	loader := "/usr/lib64/ld-linux-x86-64.so.2"
	if _, err := os.Stat(loader); err != nil {
		t.Fatal(err)
	}
	exits("0", "run", loader, root+"/rx/true")
	exits("127", "run", loader, root+"/r/true")
}

func TestExecutableMappings(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	copyProgram(t, "/usr/bin/true", root+"/r/f")
	copyProgram(t, "/usr/bin/true", root+"/rx/f")
	s := k.start(t, rules{files: []string{path("read", root+"/r"), path("read, execute", root+"/rx")}})
	r, x := s.allowed("fd", root+"/r/f", "r").Value, s.allowed("fd", root+"/rx/f", "r").Value
	s.allowed("mmap", r, "r")
	s.denied("mmap", r, "r x")
	s.denied("mprotect", r, "r x")
	s.allowed("mprotect", r, "r")
	s.allowed("mmap", x, "r x")
	s.allowed("mprotect", x, "r x")
}

// Programs without a path of their own, and by descriptor.
func TestExecByDescriptor(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	copyProgram(t, executable(), root+"/r/prober")
	s := k.start(t, rules{files: []string{path("read", root+"/r"), path("read, execute", "/")}})
	memfd := s.allowed("memfd", executable()).Value
	s.denied("execveat", memfd)
	s.denied("execve", "/proc/self/fd/"+memfd)
	s.denied("mmap", memfd, "r x")
	s.allowed("mmap", memfd, "r")
	found := false
	for _, ev := range k.events(t) {
		found = found || ev.Operation == "exec" && ev.Verdict == "deny" && strings.HasPrefix(strings.Join(ev.Path, "/"), "memfd:test")
	}
	if !found {
		t.Error("no event names the memory file")
	}
	own := s.allowed("fd", executable(), "r").Value
	s.allowed("execveat", own) // becomes that program, without the descriptors
	own = s.allowed("fd", executable(), "path").Value
	s.allowed("execve", "/proc/self/fd/"+own)

	s = k.start(t, rules{files: []string{path("read", root+"/r")}})
	fd := s.allowed("fd", root+"/r/prober", "r").Value
	s.denied("execveat", fd)
	s.denied("execve", "/proc/self/fd/"+fd)
	s.denied("execve", root+"/r/prober")
	s.allowed("execve", executable())
}

// What an exec is told as.
func TestExecEvent(t *testing.T) {
	k := full(t)
	set := k.apply(t, rules{})
	s := k.session(t, testSubject)
	s.allowed("execve", executable())
	s.denied("open", "/etc/passwd", "r")
	var exec, open *Event
	for _, ev := range k.events(t) {
		switch ev.Operation {
		case "exec":
			exec = ev
		case "open":
			open = ev
		}
	}
	if exec == nil || open == nil {
		t.Fatal("no events of an exec and an open")
	}
	if got := "/" + strings.Join(exec.Path, "/"); got != executable() || exec.Verdict != "allow" || exec.Executable != executable() {
		t.Errorf("exec event of %q: %+v", got, exec)
	}
	if text := set.Rules[exec.Rule].Text; !strings.Contains(text, executable()) {
		t.Errorf("exec by rule %q", text)
	}
	pid := s.cmd.Process.Pid
	if open.PID != pid || open.TID == 0 || open.UID != 0 || open.Session != s.info.ID || open.Agent != s.info.Agent ||
		open.Rule != 0 || open.Reason != "default" || open.Verdict != "deny" || open.Kind != "file" ||
		open.Executable != executable() || open.BootNS == 0 || "/"+strings.Join(open.Path, "/") != "/etc/passwd" {
		t.Errorf("open event: %+v", open)
	}
	if len(open.Ancestors) == 0 || open.Ancestors[0].PID != os.Getpid() || open.Ancestors[0].Comm == "" {
		t.Errorf("ancestors %+v, want %d first", open.Ancestors, os.Getpid())
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil || open.BootNS > uint64(now.Nano()) {
		t.Errorf("told at %d, now is %d", open.BootNS, now.Nano())
	}
}
