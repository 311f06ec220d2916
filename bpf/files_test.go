// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// filesystems are what every operation is tried on.
func filesystems() map[string]func(testing.TB) string {
	return map[string]func(testing.TB) string{
		"tmpfs": kerneltest.TmpfsDir,
		"ext4":  kerneltest.Ext4Dir,
		"root":  rootDir,
	}
}

// rootDir is a directory on the filesystem of "/": an overlay, in a guest.
func rootDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "bailiff-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func path(access, path string) string {
	return fmt.Sprintf("{path: %q, allow: [%s]}", path, access)
}

func deny(access, path string) string {
	return fmt.Sprintf("{path: %q, deny: [%s]}", path, access)
}

// Every right by itself: what it opens, and what it doesn't. In each directory,
// named after what it allows, are a file f, a directory d and a symbolic link l to f.
func TestRights(t *testing.T) {
	k := full(t)
	operations := []struct {
		needs string // rights, each by its letter: r w c d
		op    string
		args  []string // % is the directory
	}{
		{"r", "open", []string{"%/f", "r"}},
		{"r", "open", []string{"%/l", "r"}},
		{"r", "open", []string{"%/d", "r dir"}},
		{"w", "open", []string{"%/f", "w"}},
		{"w", "open", []string{"%/f", "w append"}},
		{"rw", "open", []string{"%/f", "rw"}},
		{"rw", "open", []string{"%/f", "3"}},
		{"rw", "open", []string{"%/f", "r trunc"}},
		{"", "open", []string{"%/f", "path"}},
		{"wc", "open", []string{"%/new1", "w creat"}},
		{"wc", "open", []string{"%/new2", "w creat excl"}},
		{"rwc", "open", []string{"%", "rw tmpfile"}},
		{"c", "mkdir", []string{"%/new3"}},
		{"c", "mknod", []string{"%/new4", "fifo"}},
		{"c", "mknod", []string{"%/new5", "file"}},
		{"x", "mknod", []string{"%/new6", "char"}},
		{"x", "mknod", []string{"%/new7", "block"}},
		{"c", "symlink", []string{"/etc/passwd", "%/new8"}},
		{"c", "link", []string{"%/f", "%/new9"}},
		{"w", "truncate", []string{"%/f"}},
		{"w", "chmod", []string{"%/f"}},
		{"w", "chmod", []string{"%/d"}},
		{"w", "chown", []string{"%/f"}},
		{"w", "utimes", []string{"%/f"}},
		{"w", "setxattr", []string{"%/f", "security.bailiff"}},
		{"w", "removexattr", []string{"%/f", "security.bailiff"}},
		{"cd", "rename", []string{"%/u2", "%/new10"}},
		{"cd", "exchange", []string{"%/f", "%/g"}},
		{"cd", "rename", []string{"%/u3", "%/g"}},
		{"d", "unlink", []string{"%/u1"}},
		{"d", "rmdir", []string{"%/e"}},
	}
	words := strings.NewReplacer("r", "read,", "w", "write,", "c", "create,", "d", "delete,")
	for name, make := range filesystems() {
		t.Run(name, func(t *testing.T) {
			root := make(t)
			var r rules
			var sets []string
			for _, set := range []string{"r", "w", "c", "d", "rw", "wc", "cd", "rwc", "rcd", "rwd", "rwcd"} {
				dir := root + "/" + set
				touch(dir+"/f", dir+"/g", dir+"/u1", dir+"/u2", dir+"/u3", dir+"/d/below", dir+"/e/x")
				os.Remove(dir + "/e/x")
				os.Symlink("f", dir+"/l")
				r.files = append(r.files, path(words.Replace(set), dir))
				sets = append(sets, set)
			}
			s := k.start(t, r)
			for _, set := range sets {
				for _, o := range operations {
					if o.args[len(o.args)-1] == "rw tmpfile" && !temporaries(root) {
						continue
					}
					args := []any{}
					for _, a := range o.args {
						args = append(args, strings.ReplaceAll(a, "%", root+"/"+set))
					}
					if !within(o.needs, set) {
						s.denied(o.op, args...)
					} else if got := s.do(o.op, args...); got.Errno != 0 && got.Errno != unix.ENODATA && got.Errno != unix.EOPNOTSUPP {
						t.Errorf("%s: %s %q: %v", set, o.op, args, got.Errno)
					}
				}
			}
		})
	}
}

// temporaries tells whether a filesystem has O_TMPFILE; overlays on 6.1 have not.
func temporaries(dir string) bool {
	fd, err := unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func within(needs, set string) bool {
	for _, letter := range needs {
		if !strings.ContainsRune(set, letter) {
			return false
		}
	}
	return true
}

// What is written through a descriptor was judged at its open; metadata is judged anew.
func TestDescriptors(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/r/f", root+"/none/f")
	s := k.start(t, rules{files: []string{path("read, write, create, delete", root+"/w"), path("read", root+"/r")}})
	w, r := s.allowed("fd", root+"/w/f", "rw").Value, s.allowed("fd", root+"/r/f", "r").Value
	s.allowed("ftruncate", w)
	s.allowed("fchmod", w)
	s.allowed("fchown", w)
	s.denied("fchmod", r)
	s.denied("fchown", r)
	s.allowed("open", "/proc/self/fd/"+w, "rw") // judged by the file, wherever the link is
}

// Names of every length match themselves and nothing else.
func TestNames(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	var r rules
	name := func(n int) string { return strings.Repeat("abcdefghijklmnopqrstuvwxyz", 10)[:n] }
	for n := 1; n <= 255; n++ {
		touch(root + "/" + name(n) + "/f")
		if n < 255 {
			touch(root + "/" + name(n)[:n-1] + "#/f")
		}
		r.files = append(r.files, path("read", root+"/"+name(n)))
	}
	s := k.start(t, r)
	for n := 1; n <= 255; n++ {
		s.allowed("open", fmt.Sprintf("%s/%s/f", root, name(n)), "r")
		if n < 255 {
			s.denied("open", fmt.Sprintf("%s/%s#/f", root, name(n)[:n-1]), "r")
		}
	}
}

func TestPatterns(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	odd := "new\nline \x01"
	touch(root+"/w/a.txt", root+"/w/.env", root+"/w/x/y/.env", root+"/w/x/y/z.env", root+"/w/x/secret/f", root+"/w/x/y/.env.d/f",
		root+"/g/a/out/f", root+"/g/b/c/out/f", root+"/g/a/f", root+"/n/"+odd+"/f", root+"/o/"+strings.Repeat("l", 250)+".log")
	s := k.start(t, rules{files: []string{
		path("read, write, create, delete", root+"/w"),
		deny("read", root+"/w/**/.env"),
		deny("read, write, create, delete", root+"/w/x/secret"),
		path("read", root+"/g/**/out"),
		path("read, create, write", root+"/later/deep"),
		path("read", root+"/n/new*"),
		path("read", root+"/o/*.log"),
	}})
	for file, allowed := range map[string]bool{
		"/w/a.txt": true, "/w/.env": false, "/w/x/y/.env": false, "/w/x/y/z.env": true, "/w/x/secret/f": false,
		"/w/x/y/.env.d/f": true, "/g/a/out/f": true, "/g/b/c/out/f": true, "/g/a/f": false, "/n/" + odd + "/f": true,
		"/o/" + strings.Repeat("l", 250) + ".log": true, "/w/../w/./a.txt": true, "/w/x/../.env": false,
	} {
		if allowed {
			s.allowed("open", root+file, "r")
		} else {
			s.denied("open", root+file, "r")
		}
	}
	s.denied("mkdir", root+"/later")
	if err := os.MkdirAll(root+"/later", 0o755); err != nil {
		t.Fatal(err)
	}
	s.allowed("mkdir", root+"/later/deep")
	s.allowed("open", root+"/later/deep/f", "rw creat")
	s.denied("mkdir", root+"/w/x/secret/d")
}

func TestDepth(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	above := len(components(root))
	deep := func(n int) string { return root + strings.Repeat("/d", n-above-1) + "/f" }
	touch(deep(64), deep(65))
	s := k.start(t, rules{files: []string{path("read, write, create", root)}})
	s.allowed("open", deep(63), "r creat")
	s.allowed("open", deep(64), "r")
	s.denied("open", deep(65), "r")
	s.allowed("mkdirs", root, strings.Repeat("n", 255), 64-above)
	if r := s.do("mkdirs", root, strings.Repeat("n", 255), 65-above); r.Errno != unix.EACCES {
		t.Errorf("a directory at depth 65: %v", r.Errno)
	}
	found := false
	for _, ev := range k.events(t) {
		found = found || (ev.Reason == "deep" && ev.Operation == "open" && ev.Path[len(ev.Path)-1] == "f")
	}
	if !found {
		t.Error("no event says that the path is too deep")
	}
}

func TestUnconfinedUntouched(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/f")
	k.start(t, rules{}).denied("open", root+"/f", "r")
	if _, err := os.ReadFile(filepath.Join(root, "f")); err != nil {
		t.Error(err)
	}
}
