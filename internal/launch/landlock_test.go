// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func TestLandlockFor(t *testing.T) {
	for _, tt := range []struct {
		abi   int
		files uint64
		scope uint64
		gaps  int
	}{
		{1, 1<<13 - 1, 0, 6},
		{2, 1<<14 - 1, 0, 6},
		{3, 1<<15 - 1, 0, 5},
		{5, 1<<16 - 1, 0, 4},
		{7, 1<<16 - 1, 3, 3},
		{9, 1<<17 - 1, 3, 2},
		{99, 1<<17 - 1, 3, 2},
	} {
		attr, gaps := landlockFor(tt.abi)
		if attr.HandledAccessFS != tt.files || attr.Scoped != tt.scope || attr.HandledAccessNet != 0 || len(gaps) != tt.gaps {
			t.Errorf("ABI %d: %+v, gaps %q", tt.abi, attr, gaps)
		}
	}
}

func TestLandlockRights(t *testing.T) {
	const device = ll.AccessFSMakeChar | ll.AccessFSMakeBlock
	all := landlockRights(63, true)
	if all != 1<<17-1-device {
		t.Errorf("all on a directory: %#x", all)
	}
	if got := landlockRights(63, false); got != fileRights {
		t.Errorf("all on a file: %#x", got)
	}
	if got := landlockRights(accessCreate|accessDelete, false); got != 0 {
		t.Errorf("create and delete on a file: %#x", got)
	}
	if landlockRights(0, true) != 0 {
		t.Error("no access gives rights")
	}
}

// landlocked is a daemon whose answer grants what a shell needs, and paths.
func landlocked(t *testing.T, paths map[string]uint32) *daemon {
	t.Helper()
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("no Landlock of ABI 3 here: %d, %v", abi, err)
	}
	d := newDaemon(t)
	l := &controlv1.Landlock{}
	for _, p := range []string{"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"} {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			l.Paths = append(l.Paths, &controlv1.LandlockPath{Path: real, Access: accessRead | accessExecute})
		}
	}
	l.Paths = append(l.Paths, &controlv1.LandlockPath{Path: "/dev/null", Access: accessRead | accessWrite})
	for p, a := range paths {
		l.Paths = append(l.Paths, &controlv1.LandlockPath{Path: p, Access: a})
	}
	d.answer.Landlock = l
	return d
}

func TestLandlockedAccess(t *testing.T) {
	root := t.TempDir()
	dirs := map[string]uint32{
		"none":   0,
		"read":   accessRead,
		"write":  accessWrite,
		"create": accessCreate | accessWrite,
		"delete": accessDelete,
		"exec":   accessRead | accessExecute,
		"all":    accessRead | accessWrite | accessCreate | accessDelete | accessExecute,
	}
	granted := map[string]uint32{}
	for name, access := range dirs {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"f", "g"} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("#!/bin/sh\necho text\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if access != 0 {
			granted[dir] = access
		}
	}
	granted[filepath.Join(root, "none/g")] = accessRead | accessCreate | accessDelete
	d := landlocked(t, granted)
	abi, _ := ll.LandlockGetABIVersion()
	scoped := abi >= 6
	for _, tt := range []struct {
		script string
		ok     bool
	}{
		{"cat read/f", true},
		{"ls read", true},
		{"cat none/g", true}, // a grant on a file
		{"cat none/f", false},
		{"ls none", false},
		{"cat write/f", false},
		{"echo x >> write/f", true},
		{"echo x > write/f", true}, // truncates
		{"truncate -s 1 write/f", true},
		{"echo x >> read/f", false},
		{"truncate -s 1 read/f", false},
		{"echo x > write/new", false},
		{"mkdir write/d", false},
		{"ln -s x write/l", false},
		{"echo x > create/new", true},
		{"mkdir create/d && ln -s x create/l && mkfifo create/p", true},
		{"rm create/g", false},
		{"mknod all/null c 1 3", false},
		{"rm delete/g", true},
		{"echo x > delete/f", false},
		{"exec/f", true},
		{"read/f", false},
		{"mv all/f all/h && mv all/h all/f", true},
		{"mkdir all/d1 all/d2 && echo x > all/d1/x && mv all/d1/x all/d2/x && ln all/d2/x all/d1/y", true},
		{"ln read/f all/link", false}, // more would be allowed there
		{"kill -0 " + itoa(os.Getpid()), !scoped},
	} {
		r := d.shell(t, "cd "+root+" && { "+tt.script+"; }")
		if (r.code == 0) != tt.ok {
			t.Errorf("%s: want ok=%v, got %+v", tt.script, tt.ok, r)
		}
	}
}

func TestLandlockWarnings(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(root+"/secret", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/secret/f", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("secret", root+"/cache"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(root+"/real", 0o755), os.Symlink("real", root+"/same"), os.Symlink("none", root+"/dangling")); err != nil {
		t.Fatal(err)
	}
	d := landlocked(t, map[string]uint32{
		root + "/cache": accessRead, root + "/gone": accessRead, root + "/dangling": accessRead,
		root + "/same": accessRead, root + "/real": accessRead | accessWrite,
	})
	r := d.shell(t, "cat "+root+"/cache/f")
	if r.code == 0 {
		t.Errorf("a link carried a grant to another directory: %+v", r)
	}
	wantContains(t, r.stderr, "bailiff: warning: not granted, being reached through a symbolic link", root+"/cache\n")
	if abi, _ := ll.LandlockGetABIVersion(); abi < 9 {
		wantContains(t, r.stderr, "bailiff: warning: not restricted by this kernel's Landlock", "Unix sockets by path")
	}
	for _, name := range []string{"/gone", "/dangling", "/same"} {
		if strings.Contains(r.stderr, name) {
			t.Errorf("%s is worth no warning: %s", name, r.stderr)
		}
	}
}

func TestTierWithoutItsRules(t *testing.T) {
	d := newDaemon(t)
	for _, tier := range []string{"basic", "", "other"} {
		d.answer.Tier = tier
		if r := d.shell(t, "echo ran"); r.code != 125 || r.stdout != "" || !strings.Contains(r.stderr, "gave no file rules") {
			t.Errorf("tier %q: %+v", tier, r)
		}
	}
}

func TestOwnProc(t *testing.T) {
	own := "/proc/" + itoa(os.Getpid())
	for path, want := range map[string]string{
		"/proc/self": own, "/proc/self/fd": own + "/fd", "/proc/selfish": "/proc/selfish", "/proc/1": "/proc/1", "/etc": "/etc",
	} {
		if got := ownProc(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestLandlockDeniesTheCommand(t *testing.T) {
	d := landlocked(t, nil)
	file := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := d.run(t, Options{Command: []string{file}})
	if r.code != 126 {
		t.Errorf("got %+v", r)
	}
	wantContains(t, r.stderr, "the policy of tester must allow read and execute", "bailiff tail --session s-1")
}
