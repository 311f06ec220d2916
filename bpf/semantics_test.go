// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// Cases that the kernel's own tests of Landlock and of file systems make much of,
// where generated accesses do not come to.

// Memory, pipes and sockets have no path that a policy could speak of: what a
// session makes for itself it may use in every way but to run it.
func TestAnonymousFiles(t *testing.T) {
	k := full(t)
	s := k.start(t, rules{})
	for _, kind := range []string{"memory", "pipe", "socket"} {
		for _, op := range []string{"ftruncate", "fchmod", "fchown", "futimes"} {
			if op == "ftruncate" && kind != "memory" {
				continue
			}
			s.allowed("anonymous", kind, op)
		}
	}
}

// Metadata is judged by where a file is when it is changed, whatever its
// descriptor was opened for and wherever the file was then.
func TestDescriptorsOfMovedFiles(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/w/g", root+"/r/f", root+"/r/dir/x")
	s := k.start(t, rules{files: []string{path("read, write, create, delete", root+"/w"), path("read", root+"/r")}})
	out := s.allowed("fd", root+"/w/f", "rw").Value
	in := s.allowed("fd", root+"/r/f", "r").Value
	changes := []string{"fchmod", "fchown", "futimes", "fsetxattr", "fremovexattr"}
	for _, op := range changes {
		s.denied(op, in)
		s.allowed(op, out)
	}
	for from, to := range map[string]string{"/w/f": "/r/moved", "/r/f": "/w/moved"} {
		if err := os.Rename(root+from, root+to); err != nil {
			t.Fatal(err)
		}
	}
	s.denied("ftruncate", out)
	s.allowed("write", out, "what was opened for writing is written on")
	for _, op := range changes {
		s.denied(op, out)
		s.allowed(op, in)
	}
	// A directory that a process holds is judged by where it has gone.
	dir := s.allowed("fd", root+"/r/dir", "path").Value
	s.denied("openat", dir, "x", "w")
	if err := os.Rename(root+"/r/dir", root+"/w/dir"); err != nil {
		t.Fatal(err)
	}
	s.allowed("openat", dir, "x", "w")
	s.denied("openat", dir, "../../r/moved", "w")
}

// What is mounted over a directory is judged by that directory's path; what is
// beneath it can't be reached by it.
func TestMountedOver(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/m/secret/f", root+"/w/m/x")
	s := k.start(t, rules{files: []string{path("read, write, create, delete", root+"/w"), deny("read, write", root+"/w/m/secret")}})
	s.allowed("open", root+"/w/m/x", "r")
	s.denied("open", root+"/w/m/secret/f", "r")
	mount(t, "tmpfs", root+"/w/m", "tmpfs", 0, "")
	touch(root+"/w/m/secret/f", root+"/w/m/y")
	if err := k.SetHomes(mounts(t)); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", root+"/w/m/y", "rw")
	s.denied("open", root+"/w/m/secret/f", "r")
	s.want(unix.EXDEV, "rename", root+"/w/m/y", root+"/w/y")
	if err := unix.Unmount(root+"/w/m", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", root+"/w/m/x", "r")
	s.denied("open", root+"/w/m/secret/f", "r")
}

// Other flags of rename ask for no less.
func TestRenameFlags(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/a", root+"/w/b", root+"/r/a", root+"/d/a")
	s := k.start(t, rules{files: []string{
		path("read, write, create, delete", root+"/w"), path("read", root+"/r"), path("read, write, delete", root+"/d"),
	}})
	s.want(unix.EEXIST, "renameflags", root+"/w/a", root+"/w/b", unix.RENAME_NOREPLACE)
	s.allowed("renameflags", root+"/w/a", root+"/w/c", unix.RENAME_NOREPLACE)
	s.denied("renameflags", root+"/r/a", root+"/w/d", unix.RENAME_NOREPLACE)
	s.denied("renameflags", root+"/w/b", root+"/r/b", unix.RENAME_NOREPLACE)
	s.denied("renameflags", root+"/r/a", root+"/w/d", unix.RENAME_WHITEOUT)
	s.denied("renameflags", root+"/w/b", root+"/r/b", unix.RENAME_WHITEOUT)
}
