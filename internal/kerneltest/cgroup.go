// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupRoot returns the directory where this machine's cgroup v2 hierarchy is
// mounted: /sys/fs/cgroup on most, /sys/fs/cgroup/unified on hybrid ones.
func CgroupRoot(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatalf("read mounts: %v", err)
	}
	for line := range strings.Lines(string(mounts)) {
		// 36 35 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
		mount, source, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if ok && strings.HasPrefix(source, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4]
		}
	}
	t.Skip(SkipReason + "cgroup: no cgroup v2 hierarchy is mounted")
	return ""
}

// Cgroup makes a cgroup of its own for a test and returns its directory. What
// still runs in it at the test's end is killed, and it and its children removed.
func Cgroup(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	directory, err := os.MkdirTemp(CgroupRoot(t), "bailiff-test-")
	if err != nil {
		t.Fatalf("make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		if err := removeCgroup(directory); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	return directory
}

func removeCgroup(directory string) error {
	kill := filepath.Join(directory, "cgroup.kill")
	if err := os.WriteFile(kill, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := waitEmpty(directory); err != nil {
		return err
	}
	var children []string
	err := filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			children = append(children, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(children) - 1; i >= 0; i-- {
		if err := os.Remove(children[i]); err != nil {
			return err
		}
	}
	return nil
}

// waitEmpty waits until the kernel has seen off the killed processes.
func waitEmpty(directory string) error {
	for range 500 {
		events, err := os.ReadFile(filepath.Join(directory, "cgroup.events"))
		if err != nil {
			return err
		}
		if bytes.Contains(events, []byte("populated 0")) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s: still populated: %w", directory, unix.EBUSY)
}
