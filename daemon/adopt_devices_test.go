// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// newTerminal makes a pseudoterminal, which is the test's, and returns its path.
func newTerminal(t *testing.T) string {
	t.Helper()
	master, slave, err := kerneltest.NewTerminal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(master) })
	return slave
}

// A tree keeps the terminal that controls it and those that it made; others not.
func TestInspectTerminals(t *testing.T) {
	dir, controlling, foreign := t.TempDir(), newTerminal(t), newTerminal(t)
	// The first terminal that a leader opens controls it.
	pid := shellTree(t, strings.NewReplacer("DIR", dir, "OWN", controlling, "FOREIGN", foreign).Replace(
		"exec 3<> OWN 4<> /dev/ptmx; (exec 5<> FOREIGN; echo > DIR/up; sleep 100) & until test -s DIR/up; do sleep 0.01; done"))
	tree := standing(t, pid)
	x, err := inspect(tree, judged(t, "  files: [{path: /, allow: [read, execute]}, {path: /dev, allow: [read, write]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer x.sockets.close()
	files := reportOf(x, kindFile)
	for path, want := range map[string]string{controlling: verdictFine, "/dev/ptmx": verdictFine, foreign: verdictKill} {
		if got := files[path]; got != want {
			t.Errorf("%s: %q, want %q: %v", path, got, want, files)
		}
	}
	if len(x.terminals) < 2 || x.forbidden[pid] {
		t.Errorf("terminals %v, forbidden %v", x.terminals, x.forbidden)
	}
}

func TestRefusedDevices(t *testing.T) {
	x := &inspection{terminals: map[uint64]bool{unix.Mkdev(136, 7): true}}
	for path, want := range map[string]bool{"/dev/null": false, "/dev/tty": false, "/dev/ptmx": false, "/etc": false} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if why := x.refusedDevice(&st); (why != "") != want {
			t.Errorf("%s: %q", filepath.Base(path), why)
		}
	}
	for _, device := range []struct {
		kind, major, minor uint32
		refused            bool
	}{
		{unix.S_IFBLK, 8, 0, true}, {unix.S_IFCHR, 1, 1, true}, {unix.S_IFCHR, 1, 11, true}, {unix.S_IFCHR, 1, 9, false},
		{unix.S_IFCHR, 4, 1, true}, {unix.S_IFCHR, 4, 64, false}, {unix.S_IFCHR, 5, 1, true}, {unix.S_IFCHR, 7, 1, true},
		{unix.S_IFCHR, 10, 229, true}, {unix.S_IFCHR, 10, 183, false}, {unix.S_IFCHR, 136, 7, false}, {unix.S_IFCHR, 136, 8, true},
	} {
		st := unix.Stat_t{Mode: device.kind, Rdev: unix.Mkdev(device.major, device.minor)}
		if why := x.refusedDevice(&st); (why != "") != device.refused {
			t.Errorf("%+v: %q", device, why)
		}
	}
}
