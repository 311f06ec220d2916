// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// A root directory of the session's own changes nothing about where a file is.
func TestChroot(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/secret/f", root+"/fake/f")
	s := k.start(t, rules{files: []string{path("read", root+"/w"), path("read", "/fake"), deny("read", root+"/secret")}})
	s.allowed("chroot", root)
	s.allowed("open", "/w/f", "r")
	s.denied("open", "/fake/f", "r")
	s.denied("open", "/secret/f", "r")
}

func TestHandles(t *testing.T) {
	for name, make := range filesystems() {
		if name == "root" {
			continue // overlays give no handles here
		}
		t.Run(name, func(t *testing.T) {
			k := full(t)
			root := make(t)
			touch(root+"/w/f", root+"/secret/f", root+"/w/b/f")
			bind(t, root+"/w", root+"/w/b")
			s := k.start(t, rules{files: []string{path("read", root+"/w")}})
			good, bad := s.allowed("handle", root+"/w/f").Value, s.allowed("handle", root+"/secret/f").Value
			s.allowed("openhandle", root+"/w", good)
			s.denied("openhandle", root+"/w", bad)
			s.denied("openhandle", root+"/w/b", bad)
			unix.Sync()
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
				t.Fatal(err)
			}
			s.denied("openhandle", root+"/w", bad)
			s.denied("openhandle", root+"/w/b", bad)
		})
	}
}

// Mounts that hang nowhere, or not any more, lead nowhere.
func TestDetachedMounts(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/w/m/x")
	mount(t, "tmpfs", root+"/w/m", "tmpfs", 0, "")
	touch(root + "/w/m/f")
	s := k.start(t, rules{files: []string{path("read, write, create", root), path("read, write, create", "/")}})
	s.denied("fsopen")
	s.denied("opentree", root, "w/f")
	dir := s.allowed("fd", root+"/w/m", "path").Value
	s.allowed("openat", dir, "f", "r")
	if err := unix.Unmount(root+"/w/m", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.denied("openat", dir, "f", "r")
}

func TestProc(t *testing.T) {
	k := full(t)
	s := k.start(t, rules{files: []string{path("read", "/proc/self"), path("read", "/proc/version")}})
	own := s.allowed("pid").Value
	s.allowed("open", "/proc/self/status", "r")
	s.allowed("open", "/proc/"+own+"/status", "r")
	s.allowed("open", "/proc/thread-self/status", "r")
	s.allowed("open", "/proc/version", "r")
	s.denied("open", "/proc/self/status", "w")
	s.denied("open", fmt.Sprintf("/proc/%d/status", os.Getpid()), "r")
	s.denied("open", "/proc/1/status", "r")
	s.denied("open", "/proc/uptime", "r")
	s.denied("open", "/proc/sys/kernel/ostype", "r")

	other := k.session(t, testSubject)
	s.denied("open", "/proc/"+other.allowed("pid").Value+"/status", "r")
	s.allowed("open", "/proc/"+own+"/status", "r")
	other.denied("open", "/proc/"+own+"/status", "r")
}

// Filesystems that only the kernel mounts are internal; those that it also
// mounts are not.
func TestKernelFilesystems(t *testing.T) {
	k := full(t)
	s := k.start(t, rules{})
	for _, file := range []string{
		"/sys/kernel/security/lsm", "/sys/kernel/tracing/trace_marker", "/sys/kernel/debug", "/sys/kernel/tracing",
		"/sys/kernel/notes", "/dev/kmsg", "/dev/null", k.options.Cgroup + "/cgroup.procs",
	} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		s.denied("open", file, "r")
	}
}

func TestReopenDescriptors(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/r/f", root+"/r/g")
	s := k.start(t, rules{files: []string{path("read", root+"/r")}})
	f := s.allowed("fd", root+"/r/f", "r").Value
	if err := os.Remove(root + "/r/f"); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", "/proc/self/fd/"+f, "r")
	s.denied("open", "/proc/self/fd/"+f, "rw")
	g := s.allowed("fd", root+"/r/g", "path").Value
	s.allowed("open", "/proc/self/fd/"+g, "r")
	s.denied("open", "/proc/self/fd/"+g, "w")

	var in, out int
	if _, err := fmt.Sscan(s.allowed("pipe").Value, &in, &out); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", fmt.Sprint("/proc/self/fd/", in), "r nonblock")
	s.allowed("open", fmt.Sprint("/proc/self/fd/", out), "w")
}

// On an overlay that an administrator made, the overlay's own path decides, and
// the kernel's dealings with the layers are no business of the session's.
func TestOverlay(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/lower/f", root+"/lower/g", root+"/lower/h", root+"/lower/d/f", root+"/lower/secret/f", root+"/w/m/x", root+"/n/x", root+"/upper/x", root+"/work/x")
	for _, dir := range []string{root + "/w/m", root + "/n"} {
		layers := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", root, root, root)
		if dir == root+"/n" {
			layers = fmt.Sprintf("lowerdir=%s/lower:%s/r", root, root)
			touch(root + "/r/x")
		}
		mount(t, "overlay", dir, "overlay", 0, layers)
	}
	m := root + "/w/m"
	s := k.start(t, rules{files: []string{
		path("read, write, create, delete", root+"/w"), deny("read, write, create, delete", m+"/secret"),
	}})
	s.allowed("open", m+"/f", "r")
	s.allowed("open", m+"/f", "w")
	s.allowed("chmod", m+"/g")
	s.allowed("utimes", m+"/h")
	s.allowed("open", m+"/new", "rw creat")
	s.allowed("rename", m+"/new", m+"/new2")
	s.allowed("unlink", m+"/new2")
	s.allowed("unlink", m+"/f")
	s.allowed("mkdir", m+"/dir")
	s.denied("open", m+"/secret/f", "r")
	s.denied("utimes", m+"/secret/f")
	s.denied("open", m+"/secret/new", "w creat")
	s.denied("open", root+"/n/g", "r")
	s.denied("open", root+"/lower/g", "r")
	s.denied("open", root+"/upper/g", "r")
	s.denied("utimes", root+"/upper/g")
}

// Binding a socket to a path creates a file.
func TestUnixSocketFiles(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/x", root+"/r/x")
	s := k.start(t, rules{files: []string{path("read, write, create", root+"/w"), path("read", root+"/r")}})
	fd := s.allowed("socket", "unix", "stream", "").Value
	s.denied("bind", fd, "unix:"+root+"/r/sock")
	s.allowed("bind", fd, "unix:"+root+"/w/sock")
	s.allowed("listen", fd)
}
