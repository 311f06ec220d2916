// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A connected socket leads to the name that the other end is bound to.
func TestUnix(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "socket"), "@bailiff-sockdiag-" + t.Name()} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		leadsTo(t, c, name) // while it waits
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		leadsTo(t, c, name)
	}
}

func leadsTo(t *testing.T, c net.Conn, name string) {
	t.Helper()
	sockets, err := Unix()
	if err != nil {
		t.Fatal(err)
	}
	s, ok := sockets[inodeOf(t, c.(syscall.Conn))]
	if !ok || s.Name != "" || !s.Connected || s.Peer == 0 || sockets[s.Peer].Name != name {
		t.Errorf("%q: %+v leads to %+v", name, s, sockets[s.Peer])
	}
}

func inodeOf(t *testing.T, c syscall.Conn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if control := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); control != nil || err != nil {
		t.Fatal(control, err)
	}
	return uint32(st.Ino)
}
