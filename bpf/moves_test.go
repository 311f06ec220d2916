// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// A new name never gives wider rights than the old one did.
func TestMovesThatWiden(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/r/f", root+"/r/same", root+"/rw/f", root+"/rw/p/secret/f", root+"/rw/plain/f", root+"/rw/q/f",
		root+"/rd/f", root+"/rd/d/f", root+"/rd/g", root+"/x/prog", root+"/rw/tmp")
	s := k.start(t, rules{files: []string{
		path("read", root+"/r"),
		path("read, create", root+"/r2"),
		path("read, write, create, delete", root+"/rw"),
		path("read, create, delete", root+"/rd"),
		path("read, execute", root+"/x"),
		deny("read", root+"/rw/p/secret"),
	}})
	if err := os.Mkdir(root+"/r2", 0o755); err != nil {
		t.Fatal(err)
	}
	s.denied("link", root+"/r/f", root+"/rw/link")
	s.allowed("link", root+"/r/same", root+"/r2/link")
	s.allowed("link", root+"/rw/f", root+"/rw/link")
	s.denied("rename", root+"/rd/f", root+"/rw/f2")
	s.denied("rename", root+"/rd/d", root+"/rw/d")
	s.denied("exchange", root+"/rd/g", root+"/rw/tmp")
	s.denied("exchange", root+"/rw/tmp", root+"/rd/g")
	s.denied("rename", root+"/rw/p", root+"/rw/p2")
	s.denied("rename", root+"/rw/p/secret", root+"/rw/open")
	s.denied("rename", root+"/rw/p/secret/f", root+"/rw/open")
	s.denied("exchange", root+"/rw/p", root+"/rw/q")
	s.denied("exchange", root+"/rw/q", root+"/rw/p")
	s.allowed("rename", root+"/rw/plain", root+"/rw/plain2")
	s.denied("open", root+"/rw/p/secret/f", "r")
	if got := s.do("rename", root+"/rw/q", root+"/elsewhere"); got.Errno != unix.EACCES {
		t.Errorf("rename out of what is allowed: %v", got.Errno)
	}
	wider := 0
	for _, ev := range k.events(t) {
		if ev.Reason == "wider" {
			wider++
			if len(ev.Path) == 0 || len(ev.Target) == 0 {
				t.Errorf("%s: path %q, target %q", ev.Operation, ev.Path, ev.Target)
			}
		}
	}
	if wider < 6 {
		t.Errorf("%d events say that the new name has wider rights", wider)
	}
}

// A file under O_TMPFILE gets its name by a link: judged like any.
func TestLinkTemporary(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/a/f", root+"/b/f")
	s := k.start(t, rules{files: []string{
		path("read, write, create", root+"/a"), path("create", root+"/b"), path("read, write, create, execute", root+"/c"),
	}})
	if err := os.Mkdir(root+"/c", 0o755); err != nil {
		t.Fatal(err)
	}
	fd := s.allowed("fd", root+"/a", "rw tmpfile").Value
	s.denied("linkfd", fd, root+"/c/f")
	s.allowed("linkfd", fd, root+"/b/g")
	s.allowed("linkfd", fd, root+"/a/g")
}

// What is explicitly denied where a filesystem has it stays denied under a
// bind mount; the bind mount itself is judged by where it is.
func TestBindMounts(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/secret/f", root+"/secret/sub/f", root+"/plain/f", root+"/w/f", root+"/w/b/x", root+"/w/p/x", root+"/n/x", root+"/w/file")
	bind(t, root+"/secret", root+"/w/b")
	bind(t, root+"/plain", root+"/w/p")
	bind(t, root+"/w", root+"/n")
	bind(t, root+"/secret/f", root+"/w/file")
	s := k.start(t, rules{files: []string{
		path("read, write, create, delete", root+"/w"),
		deny("read, write", root+"/secret"),
	}})
	for _, file := range []string{"/secret/f", "/w/b/f", "/w/b/sub/f", "/w/file", "/n/f", "/plain/f"} {
		s.denied("open", root+file, "r")
		s.denied("open", root+file, "w")
		s.denied("truncate", root+file)
		s.denied("chmod", root+file)
	}
	s.denied("utimes", root+"/w/b/f")
	s.denied("utimes", root+"/w/file")
	s.allowed("open", root+"/w/p/f", "rw")
	s.allowed("open", root+"/w/f", "rw")
}

// Within one bind mount, a rename can leave a place that is denied.
func TestBindMountMoves(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/data/secret/f", root+"/data/secret/g", root+"/data/plain/f", root+"/w/x/f")
	bind(t, root+"/data", root+"/w/x")
	s := k.start(t, rules{files: []string{
		path("read, write, create, delete", root+"/w"),
		deny("read", root+"/data/secret"),
	}})
	s.denied("open", root+"/w/x/secret/f", "r")
	s.denied("rename", root+"/w/x/secret/f", root+"/w/x/plain/g")
	s.denied("link", root+"/w/x/secret/f", root+"/w/x/plain/h")
	s.denied("rename", root+"/w/x/secret", root+"/w/x/plain/d")
	s.denied("exchange", root+"/w/x/plain/f", root+"/w/x/secret/g")
	s.denied("exchange", root+"/w/x/secret/g", root+"/w/x/plain/f")
	s.allowed("rename", root+"/w/x/plain/f", root+"/w/x/plain/k")
	s.allowed("open", root+"/w/x/plain/k", "r")
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	mount(t, from, to, "", unix.MS_BIND, "")
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}
