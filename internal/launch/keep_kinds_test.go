// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func TestKeptRefused(t *testing.T) {
	d := newDaemon(t)
	for _, tt := range []struct {
		keep   []int
		stderr string
	}{
		{[]int{3, 13}, "--keep-fd 13: it is not open here: open it"},
		{[]int{-1}, "--keep-fd -1: only numbers from 3 to 1023"},
		{[]int{2}, "--keep-fd 2: standard input, output and error are always handed on"},
		{[]int{1024}, "--keep-fd 1024: only numbers from 3 to 1023"},
		{[]int{3, 5, 3}, "--keep-fd 3: it is named twice"},
	} {
		d.refuses(t, withInherited(t, d.lister(t, tt.keep...), map[int]*os.File{3: textFile(t, "x"), 5: textFile(t, "x")}), tt.stderr)
	}
	if len(d.launches) != 0 {
		t.Errorf("%d sessions were asked for", len(d.launches))
	}
}

// refuses runs a command that must not be started.
func (d *daemon) refuses(t *testing.T, cmd *exec.Cmd, why string) {
	t.Helper()
	if r := finish(t, cmd); r.code != ExitFailed || r.stdout != "" || !strings.HasPrefix(r.stderr, "bailiff: "+why) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("got %+v\nwant %s", r, why)
	}
}

// TestKindsRefused: what acts past the hooks, or on the kernel, is not handed on.
func TestKindsRefused(t *testing.T) {
	d := newDaemon(t)
	path := func(name string) func(*testing.T) *os.File {
		return func(t *testing.T) *os.File { return opened(t, name) }
	}
	socket := func(family, kind, protocol int) func(*testing.T) *os.File {
		return func(t *testing.T) *os.File { return socketFile(t, family, kind, protocol) }
	}
	for _, tt := range []struct {
		name string
		open func(*testing.T) *os.File
		is   string
	}{
		{"event counter", eventCounter, "anon_inode:[eventfd], an object of the kernel's"},
		{"process", path("/proc/self"), "/proc/"},
		{"kernel", path("/proc/sys/kernel/core_pattern"), "/proc/sys/kernel/core_pattern on a file system of the kernel's own"},
		{"sysfs", path("/sys/kernel"), "/sys/kernel on a file system of the kernel's own"},
		{"cgroup", path(cgroupRoot(t)), cgroupRoot(t) + " on a file system of the kernel's own"},
		{"namespace", path("/proc/self/ns/net"), "net:["},
		{"kernel log", path("/dev/kmsg"), "the device /dev/kmsg, and no terminal"},
		{"netlink", socket(unix.AF_NETLINK, unix.SOCK_RAW, 0), "a socket of family 16, type 3, protocol 0, which a session could not make"},
		{"MPTCP", socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), "a socket of family 2, type 1, protocol 262"},
		{"raw", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), "a socket of family 2, type 3, protocol 1"},
		{"packet", socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0), "a socket of family 17, type 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.refuses(t, withInherited(t, d.lister(t, 5), map[int]*os.File{5: tt.open(t)}), "--keep-fd 5: it is "+tt.is)
		})
	}
}

func eventCounter(t *testing.T) *os.File {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "eventfd")
	t.Cleanup(func() { file.Close() })
	return file
}

// cgroupRoot is where a control group hierarchy is mounted.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 2 && strings.HasPrefix(words[2], "cgroup") {
			return words[1]
		}
	}
	return "/sys/fs/cgroup" // missing: the case is skipped
}

// socketFile makes a socket; where the kernel has none of the kind, or this user may
// not, the test is skipped.
func socketFile(t *testing.T, family, kind, protocol int) *os.File {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Skipf("SKIP-REASON: socket: family %d, type %d, protocol %d: %v", family, kind, protocol, err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { file.Close() })
	return file
}

// TestKeptSockets: the basic tier has nothing that judges a TCP or UDP socket from
// outside.
func TestKeptSockets(t *testing.T) {
	d := newDaemon(t)
	files := map[int]*os.File{
		3: socketFile(t, unix.AF_UNIX, unix.SOCK_SEQPACKET, 0), 4: socketFile(t, unix.AF_INET, unix.SOCK_STREAM, 0),
		5: socketFile(t, unix.AF_INET6, unix.SOCK_DGRAM, 0), 6: opened(t, "/dev/null"), 7: opened(t, "/"),
	}
	if r := finish(t, withInherited(t, d.lister(t, 3, 4, 5, 6, 7), files)); r.code != 0 || strings.Count(r.stdout, "\n") != 5 {
		t.Errorf("full tier: got %+v", r)
	}
	d.answer.Tier = "basic"
	d.answer.Landlock = &controlv1.Landlock{Paths: []*controlv1.LandlockPath{{Path: "/", Access: accessRead | accessExecute}}}
	r := finish(t, withInherited(t, d.lister(t, 3, 6), files))
	if r.code != 0 || strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("basic tier, a Unix socket: got %+v", r)
	}
	for _, n := range []int{4, 5} {
		r := finish(t, withInherited(t, d.lister(t, 3, n), files))
		if want := fmt.Sprintf("--keep-fd %d: it is a TCP or UDP socket, and on the basic tier", n); r.code != ExitFailed || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("basic tier: got %+v", r)
		}
	}
}
