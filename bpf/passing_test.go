// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// newTerminal makes a pseudoterminal and opens its slave.
func newTerminal() (master, slave int, path string, err error) {
	master, path, err = kerneltest.NewTerminal()
	if err != nil {
		return -1, -1, "", err
	}
	slave, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	return master, slave, path, err
}

// outsideTerminal makes one that is no session's; its files are the test's.
func outsideTerminal(t *testing.T) (master, slave int, path string) {
	t.Helper()
	master, slave, path, err := newTerminal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(master); unix.Close(slave) })
	return master, slave, path
}

// giver serves, outside any session, a socket that hands descriptors to whoever
// connects, in turn.
func giver(t *testing.T, path string, fds ...int) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, fd := range fds {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil)
			c.Close()
		}
	}()
}

// A session has the terminals that it makes and the one it was started in.
func TestTerminals(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	master, _, foreign := outsideTerminal(t)
	_, login, own := outsideTerminal(t)
	giver(t, root+"/giver", master)
	k.apply(t, rules{
		files:   []string{path("read, write", "/dev"), path("read, write", root)},
		network: []string{"{allow: connect, unix: " + root + "/giver}"},
	})
	other := k.session(t, testSubject)
	s := k.prepareWith(t, testSubject, &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}, login)
	s.start(t)
	var m, slave int
	var made string
	if _, err := fmt.Sscan(s.allowed("terminal").Value, &m, &slave, &made); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", made, "rw")
	s.allowed("open", own, "rw")
	s.allowed("open", "/dev/tty", "rw")
	s.denied("open", foreign, "r")
	s.denied("open", foreign, "w")
	other.denied("open", made, "r")
	other.denied("open", own, "r")
	other.denied("open", foreign, "r")
	fd := s.allowed("socket", "unix", "stream", "").Value
	s.allowed("connect", fd, "unix:"+root+"/giver")
	s.denied("take", fd)
	wantTold(t, k.events(t), "open", "terminal", 5)

	// What comes after it at the same number, maybe at the same place in memory, is not the session's.
	s.allowed("close", m)
	s.allowed("close", slave)
	for range 20 {
		_, _, next := outsideTerminal(t)
		s.denied("open", next, "r")
	}
}

// wantTold demands events of an operation that was denied for a reason, one a repeat.
func wantTold(t *testing.T, events []*Event, operation, reason string, want int) {
	t.Helper()
	told := 0
	for _, ev := range events {
		if ev.Operation == operation && ev.Reason == reason && ev.Verdict == "deny" {
			told += int(ev.Count)
		}
	}
	if told != want {
		t.Errorf("%s denied for the reason %q was told %d times, want %d", operation, reason, told, want)
	}
}

// Sockets that others made are not the session's by being handed to it; those that
// its own processes hand to each other are.
func TestPassedSockets(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	outside := func(family, kind, protocol int) int {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	raw := outside(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
	foreign := []int{pair[0], outside(unix.AF_UNIX, unix.SOCK_DGRAM, 0), outside(unix.AF_PACKET, unix.SOCK_RAW, 0), raw,
		outside(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)}
	giver(t, root+"/giver", append(foreign, outside(unix.AF_INET, unix.SOCK_STREAM, 0))...)
	s := k.start(t, rules{
		files:   []string{path("read, write, create", root)},
		network: []string{"{allow: connect, unix: " + root + "/giver}", "{allow: connect, cidr: 127.0.0.0/8, protocol: any}", "{allow: connect, to: self}"},
	})
	take := func() string {
		fd := s.allowed("socket", "unix", "stream", "").Value
		s.allowed("connect", fd, "unix:"+root+"/giver")
		return fd
	}
	for range foreign {
		s.denied("take", take())
	}
	wantTold(t, k.events(t), "receive", "socket", len(foreign))
	s.allowed("take", take())

	// What they hand to each other: a pair, and what a listener of theirs accepted from outside.
	var a, b, c, d int
	for _, ends := range [][2]*int{{&a, &b}, {&c, &d}} {
		if _, err := fmt.Sscan(s.allowed("socketpair", "stream").Value, ends[0], ends[1]); err != nil {
			t.Fatal(err)
		}
	}
	s.allowed("give", a, c)
	s.allowed("send", s.allowed("take", b).Value, "x")
	l := s.allowed("socket", "unix", "stream", "").Value
	s.allowed("bind", l, "unix:"+root+"/own")
	s.allowed("listen", l)
	client := outside(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err := unix.Connect(client, &unix.SockaddrUnix{Name: root + "/own"}); err != nil {
		t.Fatal(err)
	}
	s.allowed("give", a, s.allowed("accept", l).Value)
	s.allowed("send", s.allowed("take", b).Value, "x")

	// One that was there before the session is of no more use.
	held := k.prepareWith(t, testSubject, &syscall.SysProcAttr{}, raw)
	held.start(t)
	held.want(unix.EACCES, "sendto", 3, "127.0.0.1:9")
	held.want(unix.EACCES, "recv", 3)
}
