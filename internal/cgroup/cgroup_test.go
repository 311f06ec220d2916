// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/kerneltest"
)

func TestFindRoot(t *testing.T) {
	const unified = "36 35 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	const hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	const part = "50 49 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	for mounts, want := range map[string]string{unified: "/sys/fs/cgroup", hybrid: "/sys/fs/cgroup/unified", part + unified: "/sys/fs/cgroup"} {
		if got, err := findRoot(bufio.NewScanner(strings.NewReader(mounts))); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := findRoot(bufio.NewScanner(strings.NewReader(part))); !errors.Is(err, ErrNone) {
		t.Errorf("only a part of the hierarchy: %v", err)
	}
}

// Where there is no controller that is told, and children are made all the same.
func TestLimitProcesses(t *testing.T) {
	base := kerneltest.Cgroup(t)
	parent, err := Open(filepath.Base(base))
	if err != nil {
		t.Fatal(err)
	}
	most, err := HostProcesses()
	if err != nil || most < 100 {
		t.Fatalf("the host can have %d processes: %v", most, err)
	}
	controllers, err := os.ReadFile(filepath.Join(parent.root, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{base: "40\n"}
	if err := parent.LimitProcesses(40, 20); slices.Contains(strings.Fields(string(controllers)), "pids") {
		if err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, ErrNoLimit) {
		t.Fatalf("without a controller: %v", err)
	} else {
		want = nil
	}
	group, err := parent.Make("s-limited")
	if err != nil {
		t.Fatal(err)
	}
	defer group.Remove()
	if want != nil {
		want[group.Path] = "20\n"
	}
	for path, limit := range want {
		if got, err := os.ReadFile(filepath.Join(path, "pids.max")); string(got) != limit || err != nil {
			t.Errorf("%s: %q, %v, want %q", path, got, err, limit)
		}
	}
}

func TestOpenNeedsAName(t *testing.T) {
	for _, name := range []string{"", "/", "..", "a/../.."} {
		if p, err := Open(name); err == nil {
			t.Errorf("%q opened %s", name, p.Path)
		}
	}
}

// A session's life: made, filled, watched, killed, removed.
func TestLife(t *testing.T) {
	base := kerneltest.Cgroup(t)
	parent, err := Open(filepath.Base(base))
	if err != nil {
		t.Fatal(err)
	}
	if parent.Path != base || parent.Level != 2 {
		t.Fatalf("%+v, want %s", parent, base)
	}
	group, err := parent.Make("s-test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parent.Make("s-test"); !errors.Is(err, os.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	watcher, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.Watch(group); err != nil {
		t.Fatal(err)
	}
	changed := make(chan string, 16)
	done := make(chan error, 1)
	go func() { done <- watcher.Run(func(name string) { changed <- name }) }()

	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := group.Add(sleep.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if name, ok, err := parent.Of(sleep.Process.Pid); name != "s-test" || !ok || err != nil {
		t.Errorf("it is in %q, %v, %v", name, ok, err)
	}
	if _, ok, err := parent.Of(os.Getpid()); ok || err != nil {
		t.Errorf("so am I: %v, %v", ok, err)
	}
	if n, err := group.Processes(); n != 1 || err != nil {
		t.Errorf("%d processes, %v", n, err)
	}
	if err := group.Kill(); err != nil {
		t.Fatal(err)
	}
	sleep.Wait()
	waitEmptied(t, group, changed)
	if err := group.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := parent.Child("s-test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed, and still there: %v", err)
	}
	watcher.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func waitEmptied(t *testing.T, group *Group, changed <-chan string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case name := <-changed:
			if name != "s-test" {
				t.Fatalf("told of %q", name)
			}
		case <-deadline:
			t.Fatal("nobody told that the cgroup emptied")
		}
		if populated, err := group.Populated(); err != nil || !populated {
			return
		}
	}
}

// What is in cgroups that a session made below its own is in the session.
func TestBelow(t *testing.T) {
	parent, err := Open(filepath.Base(kerneltest.Cgroup(t)))
	if err != nil {
		t.Fatal(err)
	}
	group, err := parent.Make("s-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(group.Path, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	below, err := parent.Child("s-test/below")
	if err != nil {
		t.Fatal(err)
	}
	want := []int{}
	for _, g := range []*Group{group, below} {
		sleep := exec.Command("sleep", "60")
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { sleep.Process.Kill(); sleep.Wait() }()
		if err := g.Add(sleep.Process.Pid); err != nil {
			t.Fatal(err)
		}
		want = append(want, sleep.Process.Pid)
	}
	if pids, err := group.PIDs(); err != nil || !slices.Equal(pids, want) {
		t.Errorf("its processes are %v, %v, want %v", pids, err, want)
	}
	var ids []uint64
	err = group.Each(func(_ string, id uint64) error { ids = append(ids, id); return nil })
	if err != nil || !slices.Equal(ids, []uint64{group.ID, below.ID}) {
		t.Errorf("its cgroups are %v, %v, want %d and %d", ids, err, group.ID, below.ID)
	}
	gone := &Group{Path: group.Path + "-gone"}
	if pids, err := gone.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("one that has gone: %v, %v", pids, err)
	}
}

// A cgroup that vanishes while a session starts is an error that names it, and
// leaves nothing to be cleaned up.
func TestVanished(t *testing.T) {
	parent, err := Open(filepath.Base(kerneltest.Cgroup(t)))
	if err != nil {
		t.Fatal(err)
	}
	group, err := parent.Make("s-gone")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(group.Path); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"add": group.Add(os.Getpid()), "kill": group.Kill(), "look": func() error { _, err := group.Populated(); return err }(),
	} {
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "s-gone") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := group.Remove(); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}
