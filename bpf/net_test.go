// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// network moves the test into a network namespace whose loopback has these addresses too.
func network(t *testing.T, addresses ...string) {
	t.Helper()
	kerneltest.NetNS(t)
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(loopback, addr); err != nil {
			t.Fatalf("add %s: %v", a, err)
		}
	}
}

// socketOf makes a socket in the session for an address.
func (s *confined) socketOf(kind, address string) string {
	s.t.Helper()
	family := "inet"
	if strings.HasPrefix(address, "[") {
		family = "inet6"
	}
	return s.allowed("socket", family, kind, "").Value
}

// reaches tells whether a destination is allowed, by every way to send to it.
func (s *confined) reaches(t *testing.T, kind, address string, want bool) {
	t.Helper()
	check := func(op string, got syscall.Errno) {
		t.Helper()
		if denied := got == unix.EACCES || got == unix.EPERM; denied == want || got == unix.EINPROGRESS || got == unix.EAGAIN {
			t.Errorf("%s %s %s: %v, want allowed: %v", op, kind, address, got, want)
		}
	}
	fd := s.socketOf(kind, address)
	check("connect", s.do("connect", fd, address).Errno)
	s.allowed("close", fd)
	fd = s.socketOf(kind, address)
	if kind == "stream" {
		check("fast open", s.do("sendto", fd, address, "fastopen").Errno)
	} else {
		check("sendto", s.do("sendto", fd, address).Errno)
		check("sendmsg", s.do("sendmsg", fd, address, "").Errno)
	}
	s.allowed("close", fd)
}

func TestConnect(t *testing.T) {
	k := basic(t)
	network(t, "10.9.0.1/24", "10.9.0.2/24", "10.9.1.1/24", "169.254.169.254/32", "fd00:9::1/64", "fd00:9::2/64", "fd00:a::1/64")
	s := k.start(t, rules{network: []string{
		"{allow: connect, cidr: 10.9.0.0/24, ports: [8000-8099, 9001]}",
		"{deny: connect, ip: 10.9.0.2}",
		"{deny: connect, ip: 10.9.0.1, ports: [8050-8060]}",
		"{allow: connect, cidr: 'fd00:9::/64', ports: [8000-8099]}",
		"{deny: connect, ip: 'fd00:9::2'}",
		"{allow: connect, ip: 10.9.0.1, ports: [5300], protocol: udp}",
		"{allow: connect, ip: 'fd00:9::1', ports: [5300], protocol: udp}",
		"{allow: connect, cidr: 0.0.0.0/0, ports: [7777]}",
		"{allow: connect, ip: 127.0.0.1, ports: [8000]}",
		"{allow: connect, ip: '::1', ports: [8001]}",
	}})
	for _, c := range []struct {
		kind, address string
		want          bool
	}{
		{"stream", "10.9.0.1:8000", true},
		{"stream", "10.9.0.1:8099", true},
		{"stream", "10.9.0.1:7999", false},
		{"stream", "10.9.0.1:8100", false},
		{"stream", "10.9.0.1:9001", true},
		{"stream", "10.9.0.1:9000", false},
		{"stream", "10.9.0.1:8049", true},
		{"stream", "10.9.0.1:8050", false},
		{"stream", "10.9.0.1:8060", false},
		{"stream", "10.9.0.1:8061", true},
		{"stream", "10.9.0.2:8000", false},
		{"stream", "10.9.1.1:8000", false},
		{"stream", "10.9.1.1:7777", true},
		{"stream", "169.254.169.254:7777", false},
		{"stream", "[::ffff:10.9.0.1]:8000", true},
		{"stream", "[::ffff:10.9.0.2]:8000", false},
		{"stream", "[::ffff:10.9.1.1]:8000", false},
		{"stream", "[::ffff:169.254.169.254]:7777", false},
		{"stream", "[fd00:9::1]:8000", true},
		{"stream", "[fd00:9::1]:8100", false},
		{"stream", "[fd00:9::2]:8000", false},
		{"stream", "[fd00:a::1]:8000", false},
		{"stream", "[fd00:a::1]:7777", false},
		{"stream", "127.0.0.1:8000", true},
		{"stream", "127.0.0.1:8001", false},
		{"stream", "127.0.0.2:8000", false},
		{"stream", "0.0.0.0:8000", true},
		{"stream", "0.0.0.0:8001", false},
		{"stream", "[::1]:8001", true},
		{"stream", "[::1]:8000", false},
		{"stream", "[::]:8001", true},
		{"stream", "[::]:8000", false},
		{"dgram", "10.9.0.1:5300", true},
		{"dgram", "10.9.0.1:8000", false},
		{"dgram", "10.9.0.1:5301", false},
		{"dgram", "10.9.0.2:5300", false},
		{"dgram", "[::ffff:10.9.0.1]:5300", true},
		{"dgram", "[::ffff:10.9.0.2]:5300", false},
		{"dgram", "[fd00:9::1]:5300", true},
		{"dgram", "[fd00:9::2]:5300", false},
		{"dgram", "0.0.0.0:5300", false},
		{"dgram", "[::]:5300", false},
	} {
		s.reaches(t, c.kind, c.address, c.want)
	}
}

// Ways to make a socket send where it was not said to.
func TestDatagramTricks(t *testing.T) {
	k := basic(t)
	network(t, "10.9.0.1/24", "10.9.0.2/24", "fd00:9::1/64")
	s := k.start(t, rules{network: []string{
		"{allow: connect, ip: 10.9.0.1, ports: [5300], protocol: udp}",
		"{allow: connect, ip: 'fd00:9::1', ports: [5300], protocol: udp}",
		"{allow: connect, ip: 10.9.0.1, ports: [8000]}",
	}})
	good, bad := "10.9.0.1:5300", "10.9.0.2:5300"
	fd := s.socketOf("dgram", good)
	s.allowed("connect", fd, good)
	s.allowed("sendto", fd, good)
	s.denied("sendto", fd, bad)
	s.denied("connect", fd, bad)
	s.denied("sendraw", fd, bad, unix.AF_UNSPEC)
	s.allowed("connect", fd, "unspec")
	s.denied("connect", fd, bad)
	s.allowed("connect", fd, good)

	fd = s.socketOf("dgram", good)
	if got := s.allowed("sendmmsg", fd, good+" "+good+" "+bad+" "+good).Value; got != "2" {
		t.Errorf("%s datagrams of four were sent, want the 2 before the one that is denied", got)
	}
	s.denied("sendraw", fd, bad, unix.AF_UNSPEC)
	s.allowed("sendraw", fd, good, unix.AF_UNSPEC)
	six := s.socketOf("dgram", "[::1]:1")
	s.allowed("sendraw", six, good, unix.AF_INET)
	s.denied("sendraw", six, bad, unix.AF_INET)

	stream := s.socketOf("stream", good)
	s.want(unix.ECONNREFUSED, "connect", stream, "10.9.0.1:8000")
	s.allowed("connect", stream, "unspec")
	s.denied("connect", stream, "10.9.0.2:8000")
}

// Packets whose headers can name another destination don't leave.
func TestHeaderOptions(t *testing.T) {
	k := basic(t)
	network(t, "10.9.0.1/24", "fd00:9::1/64")
	s := k.start(t, rules{network: []string{
		"{allow: connect, ip: 10.9.0.1, protocol: any, ports: [1-65535]}",
		"{allow: connect, ip: 'fd00:9::1', protocol: any, ports: [1-65535]}",
	}})
	six, four := "[fd00:9::1]:5300", "10.9.0.1:5300"
	fd := s.socketOf("dgram", six)
	s.allowed("sendmsg", fd, six, "")
	s.denied("sendmsg", fd, six, "dstopts")
	s.allowed("sendmsg", fd, six, "")
	fd = s.socketOf("dgram", four)
	s.allowed("sendmsg", fd, four, "")
	s.denied("sendmsg", fd, four, "retopts")
	s.allowed("sendmsg", fd, four, "")
	const noOperation = "\x01\x01\x01\x00"
	if k.full {
		s.want(unix.EPERM, "setsockopt", fd, unix.IPPROTO_IP, unix.IP_OPTIONS, noOperation)
		s.want(unix.EPERM, "setsockopt", s.socketOf("dgram", six), unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
		s.allowed("setsockopt", fd, unix.IPPROTO_IP, unix.IP_TTL, "\x40\x00\x00\x00")
		return
	}
	s.allowed("setsockopt", fd, unix.IPPROTO_IP, unix.IP_OPTIONS, noOperation)
	s.denied("sendto", fd, four)
}

func TestSocketKinds(t *testing.T) {
	k := full(t)
	network(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 1000"), 0); err != nil {
		t.Fatal(err)
	}
	s := k.start(t, rules{network: []string{"{allow: connect, cidr: 0.0.0.0/0, ports: [1-65535], protocol: any}"}})
	for _, c := range []struct {
		family, kind, protocol string
		want                   bool
	}{
		{"inet", "stream", "", true}, {"inet", "stream", "tcp", true}, {"inet6", "stream", "", true},
		{"inet", "dgram", "", true}, {"inet6", "dgram", "udp", true},
		{"inet", "stream", "mptcp", false}, {"inet6", "stream", "mptcp", false},
		{"inet", "dgram", "udplite", false}, {"inet", "dgram", "icmp", false}, {"inet", "raw", "icmp", false},
		{"inet6", "raw", "udp", false}, {"inet", "stream", "sctp", false}, {"inet", "seqpacket", "sctp", false},
		{"packet", "raw", "", false}, {"packet", "dgram", "", false}, {"vsock", "stream", "", false},
		{"alg", "seqpacket", "", false}, {"key", "raw", "", false},
		{"netlink", "raw", "", true}, {"netlink", "raw", "audit", false},
		{"unix", "stream", "", true}, {"unix", "dgram", "", true}, {"unix", "seqpacket", "", true},
	} {
		if c.want {
			s.allowed("socket", c.family, c.kind, c.protocol)
		} else {
			s.want(unix.EACCES, "socket", c.family, c.kind, c.protocol)
		}
	}
	s.allowed("socketpair", "stream")
	s.allowed("socketpair", "dgram")
}

// A label sees sockets that no cgroup program does: made before the session, or
// after leaving its cgroup.
func TestSocketsFromOutside(t *testing.T) {
	k := full(t)
	network(t, "10.9.0.1/24", "10.9.0.2/24")
	k.apply(t, rules{network: []string{
		"{allow: connect, ip: 10.9.0.1, ports: [8000]}",
		"{allow: connect, ip: 10.9.0.1, ports: [5300], protocol: udp}",
	}})
	s := k.prepare(t, testSubject)
	s.release()
	stream, dgram := s.socketOf("stream", ""), s.socketOf("dgram", "")
	connected, good := s.socketOf("dgram", ""), s.socketOf("dgram", "")
	s.allowed("connect", connected, "10.9.0.2:5300")
	s.allowed("connect", good, "10.9.0.1:5300")
	s.allowed("sendto", dgram, "10.9.0.2:5300")
	number, err := k.AgentNumber(testSubject, testSubject)
	if err != nil {
		t.Fatal(err)
	}
	s.info.Agent = number
	s.join()
	s.denied("connect", stream, "10.9.0.2:8000")
	s.denied("sendto", stream, "10.9.0.2:8000", "fastopen")
	s.denied("sendto", dgram, "10.9.0.2:5300")
	s.denied("send", connected, "x")
	s.denied("connect", dgram, "10.9.0.2:5300")
	s.allowed("sendto", dgram, "10.9.0.1:5300")
	s.allowed("send", good, "x")
	s.want(unix.ECONNREFUSED, "connect", stream, "10.9.0.1:8000")

	s.enter(filepath.Dir(k.options.Cgroup))
	s.denied("connect", s.socketOf("stream", ""), "10.9.0.2:8000")
	s.denied("sendto", s.socketOf("dgram", ""), "10.9.0.2:5300")
	s.allowed("sendto", s.socketOf("dgram", ""), "10.9.0.1:5300")
	s.denied("open", "/etc/passwd", "r")
}

func TestListen(t *testing.T) {
	k := basic(t)
	network(t, "10.9.0.1/24", "fd00:9::1/64")
	s := k.start(t, rules{network: []string{"{allow: listen, ports: [3000]}", "{allow: listen, ports: [5301], protocol: udp}"}})
	for _, c := range []struct {
		address string
		want    bool
	}{
		{"10.9.0.1:3000", true}, {"10.9.0.1:3001", false}, {"[fd00:9::1]:3000", true}, {"[fd00:9::1]:3001", false}, {"[::]:3002", false},
	} {
		fd := s.socketOf("stream", c.address)
		got := s.do("bind", fd, c.address).Errno
		if got == 0 {
			got = s.do("listen", fd).Errno
		}
		if (got == 0) != c.want || (!c.want && got != unix.EACCES) {
			t.Errorf("listen on %s: %v, want allowed: %v", c.address, got, c.want)
		}
		if c.want {
			s.serves(t, fd, c.address)
		}
	}
	if k.Full() { // without a bind the kernel chooses a port, and only the LSM hook sees it
		s.denied("listen", s.socketOf("stream", ""))
	}
	s.allowed("bind", s.socketOf("dgram", ""), "10.9.0.1:5301")
	s.denied("bind", s.socketOf("dgram", ""), "10.9.0.1:5302")
	s.allowed("bind", s.socketOf("dgram", ""), "10.9.0.1:0")
}

// serves checks that somebody outside can connect to a listener, and gets an answer.
func (s *confined) serves(t *testing.T, fd, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Errorf("dial %s: %v", address, err)
		return
	}
	defer c.Close()
	accepted := s.allowed("accept", fd).Value
	fmt.Fprint(c, "question")
	if got := s.allowed("recv", accepted).Value; got != "question" {
		t.Errorf("%s: the session read %q", address, got)
	}
	s.allowed("send", accepted, "answer")
	s.allowed("close", accepted)
	if b, err := io.ReadAll(c); err != nil || string(b) != "answer" {
		t.Errorf("%s: the client read %q, %v", address, b, err)
	}
	runtime.KeepAlive(c)
}
