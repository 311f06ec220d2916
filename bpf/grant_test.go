// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// issue gives the session a grant, which is forgotten at the end of the test.
func (s *confined) issue(g Grant) uint32 {
	s.t.Helper()
	g.Session, g.Cgroup = s.info.ID, s.info.Cgroup
	number, err := s.k.Issue(g)
	if err != nil {
		s.t.Fatalf("issue: %v", err)
	}
	s.t.Cleanup(func() {
		if err := s.k.Forget(number); err != nil {
			s.t.Errorf("forget: %v", err)
		}
	})
	return number
}

func after(d time.Duration) time.Duration { return BootTime() + d }

func files(access policy.Access, paths ...string) (list []GrantFile) {
	for _, p := range paths {
		list = append(list, GrantFile{Path: p, Access: access})
	}
	return list
}

// A grant opens what it names to one session, and nothing that a line denies.
func TestGrantFiles(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/s/f", root+"/s/sub/g", root+"/s/no/h", root+"/s/guarded", root+"/other/f", root+"/w/x")
	s := k.start(t, rules{
		files: []string{path("read, write, create", root+"/w"), deny("read", root+"/s/no")},
		guard: []string{deny("read", root+"/s/guarded")},
	})
	neighbour := k.session(t, testSubject)
	s.denied("open", root+"/s/f", "r")
	k.events(t)
	number := s.issue(Grant{Deadline: after(time.Hour), Files: files(policy.Read, root+"/s")})
	for range 2 { // the second time by the directory cache
		s.allowed("open", root+"/s/f", "r")
		s.allowed("open", root+"/s/sub/g", "r")
		s.allowed("open", root+"/s", "r dir")
	}
	granted := 0
	for _, ev := range k.events(t) {
		if ev.Operation == "open" && ev.Verdict == "allow" && ev.Reason == "grant" && ev.Grant == number {
			granted++
		}
	}
	if granted == 0 {
		t.Error("no event names the grant")
	}
	s.denied("open", root+"/s/f", "w")
	s.denied("open", root+"/s/f", "rw")
	s.denied("open", root+"/s/no/h", "r")
	s.denied("open", root+"/s/guarded", "r")
	s.denied("open", root+"/other/f", "r")
	s.denied("open", root+"/s/new", "w creat")
	s.denied("link", root+"/s/f", root+"/w/link")
	s.denied("rename", root+"/s/f", root+"/w/moved")
	neighbour.denied("open", root+"/s/f", "r")
	if err := k.Revoke(number); err != nil {
		t.Fatal(err)
	}
	s.denied("open", root+"/s/f", "r")
}

func TestGrantNames(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/s/f", root+"/s/a/g")
	s := k.start(t, rules{})
	all := policy.Read | policy.Write | policy.Create | policy.Delete
	s.issue(Grant{Deadline: after(time.Hour), Files: files(all, root+"/s")})
	s.allowed("open", root+"/s/new", "w creat")
	s.allowed("mkdir", root+"/s/b")
	s.allowed("rename", root+"/s/new", root+"/s/b/new")
	s.allowed("rename", root+"/s/a", root+"/s/c")
	s.allowed("unlink", root+"/s/c/g")
	s.allowed("chmod", root+"/s/f")
	s.allowed("utimes", root+"/s/f")
	s.denied("mkdir", root+"/t")
	s.denied("rename", root+"/s/f", root+"/f")
}

// Past its deadline a grant is over for what is open too, with nobody there to end it.
func TestGrantDeadline(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/s/f", root+"/w/x")
	s := k.start(t, rules{files: []string{path("read, write", root+"/w")}})
	s.issue(Grant{Deadline: after(3 * time.Second), Files: files(policy.Read|policy.Write, root+"/s/f")})
	fd := s.allowed("fd", root+"/s/f", "rw").Value
	mine := s.allowed("fd", root+"/w/x", "rw").Value
	s.allowed("write", fd, "hello")
	s.allowed("mapshared", fd)
	time.Sleep(3200 * time.Millisecond)
	s.denied("open", root+"/s/f", "r")
	s.denied("read", fd)
	s.denied("write", fd, "more")
	s.denied("mapshared", fd)
	s.allowed("write", mine, "hello")
	s.allowed("mapshared", mine)
	told := map[string]bool{}
	for _, ev := range k.events(t) {
		if ev.Verdict == "deny" {
			told[ev.Operation] = true
		}
	}
	for _, op := range []string{"open", "read", "write", "map"} {
		if !told[op] {
			t.Errorf("no event of a denied %s", op)
		}
	}
	// Another grant for the same file, or the policy, opens what is open again.
	s.issue(Grant{Deadline: after(time.Hour), Files: files(policy.Read, root+"/s")})
	s.allowed("read", fd)
	s.denied("write", fd, "more")
}

func TestGrantUses(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/s/f")
	s := k.start(t, rules{})
	number := s.issue(Grant{Deadline: after(time.Hour), Uses: 2, Files: files(policy.Read, root+"/s")})
	fd := s.allowed("fd", root+"/s/f", "r").Value
	s.allowed("read", fd)
	s.allowed("read", fd)
	s.allowed("open", root+"/s/f", "r")
	s.denied("open", root+"/s/f", "r")
	s.allowed("read", fd)
	if state, err := k.GrantState(number); err != nil || state.Uses != 0 || state.Revoked {
		t.Errorf("%+v, %v", state, err)
	}
	if err := k.Revoke(number); err != nil {
		t.Fatal(err)
	}
	s.denied("read", fd)
	if state, err := k.GrantState(number); err != nil || !state.Revoked {
		t.Errorf("%+v, %v", state, err)
	}
	if err := k.Forget(number); err != nil {
		t.Fatal(err)
	}
	// With no grants left, what was opened under one is still looked at.
	s.denied("read", fd)
	s.denied("mmap", fd)
	s.issue(Grant{Deadline: after(time.Hour), Files: files(policy.Read, root+"/elsewhere")})
	s.denied("read", fd)
}

// A session that has mapped a file is killed at the end of a grant that says so,
// also one that asks the kernel for nothing any more.
func TestGrantKills(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/s/f")
	for _, what := range []string{"spin", "sleep"} {
		s := k.start(t, rules{})
		s.issue(Grant{Deadline: after(2 * time.Second), Kill: true, Files: files(policy.Read, root+"/s")})
		other := k.session(t, testSubject)
		other.issue(Grant{Deadline: after(2 * time.Second), Kill: true, Files: files(policy.Read, root+"/s")})
		other.allowed("open", root+"/s/f", "r")
		s.allowed("mapshared", s.allowed("fd", root+"/s/f", "r").Value)
		if err := s.in.Encode([]string{what, "20000"}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.cmd.Wait() }()
		select {
		case err := <-ended:
			if err == nil || err.Error() != "signal: killed" {
				t.Errorf("%s: it ended with %v", what, err)
			}
		case <-time.After(8 * time.Second):
			t.Errorf("%s: it goes on", what)
		}
		other.allowed("pid") // it mapped nothing
	}
}

func (k *kernel) granted(t *testing.T, prefix string, protocol uint8, ports ...uint16) []GrantNetwork {
	t.Helper()
	return []GrantNetwork{{Prefix: netip.MustParsePrefix(prefix), Protocol: protocol, Ports: ports}}
}

func listenerPort(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

func TestGrantNetwork(t *testing.T) {
	k := basic(t)
	network(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	s := k.start(t, rules{network: []string{"{deny: connect, ip: 127.0.0.9}"}})
	neighbour := k.session(t, testSubject)
	connects := func(address string) unix.Errno { return s.do("connect", s.socketOf("stream", address), address).Errno }
	if connects(address) == 0 {
		t.Fatal("connected without a grant")
	}
	wide := s.issue(Grant{Deadline: after(time.Hour), Network: k.granted(t, "127.0.0.0/8", unix.IPPROTO_TCP, listenerPort(l.Addr()))})
	s.issue(Grant{Deadline: after(0), Network: k.granted(t, "127.0.0.1/32", unix.IPPROTO_TCP, listenerPort(l.Addr()))})
	if got := connects(address); got != 0 {
		t.Errorf("under a wide grant, with a narrow one that is over: %v", got)
	}
	told := false
	for _, ev := range k.events(t) {
		told = told || ev.Operation == "connect" && ev.Reason == "grant" && ev.Grant == wide
	}
	if !told {
		t.Error("no event names the grant")
	}
	if got := connects("127.0.0.1:1"); got != unix.EPERM && got != unix.EACCES {
		t.Errorf("another port: %v", got)
	}
	if got := connects(fmt.Sprint("127.0.0.9:", listenerPort(l.Addr()))); got != unix.EPERM && got != unix.EACCES {
		t.Errorf("a denied address: %v", got)
	}
	neighbour.denied("connect", neighbour.socketOf("stream", address), address)
	if err := k.Revoke(wide); err != nil {
		t.Fatal(err)
	}
	if connects(address) == 0 {
		t.Error("connected under a revoked grant")
	}
	s.issue(Grant{Deadline: after(time.Hour), Network: k.granted(t, "::/0", unix.IPPROTO_TCP)})
	if connects(address) == 0 {
		t.Error("a grant of IPv6 opens IPv4")
	}
	s.issue(Grant{Deadline: after(time.Hour), Uses: 1, Network: k.granted(t, "127.0.0.1/32", unix.IPPROTO_TCP)})
	if got := connects(address); got != 0 {
		t.Errorf("all ports: %v", got)
	}
	if connects(address) == 0 {
		t.Error("connected more often than granted")
	}
}

// The packets of a connection end with its grant, in both directions.
func TestGrantConnection(t *testing.T) {
	k := basic(t)
	network(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s := k.start(t, rules{})
	end := after(3 * time.Second)
	s.issue(Grant{Deadline: end, Network: k.granted(t, "127.0.0.1/32", unix.IPPROTO_TCP, listenerPort(l.Addr()))})
	s.issue(Grant{Deadline: end, Network: k.granted(t, "127.0.0.1/32", unix.IPPROTO_UDP, listenerPort(u.LocalAddr()))})
	fd := s.socketOf("stream", l.Addr().String())
	s.allowed("connect", fd, l.Addr().String())
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	udp := s.socketOf("dgram", u.LocalAddr().String())
	s.allowed("connect", udp, u.LocalAddr().String())
	s.allowed("send", udp, "x")
	s.allowed("send", fd, "x")
	buffer := make([]byte, 10)
	if n, err := peer.Read(buffer); n != 1 || err != nil {
		t.Fatalf("before the end: %d bytes, %v", n, err)
	}
	if _, err := peer.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	if got := s.allowed("recv", fd).Value; got != "early" {
		t.Errorf("before the end: %q", got)
	}
	time.Sleep(end - BootTime() + 200*time.Millisecond)
	s.do("send", fd, "late")
	if s.do("send", udp, "late").Errno != unix.EPERM {
		t.Error("a datagram left after the end")
	}
	if err := peer.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(buffer); n != 0 || !os.IsTimeout(err) {
		t.Errorf("after the end the peer read %d bytes, %v", n, err)
	}
	if _, err := peer.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if r := s.do("recvnow", fd); r.Errno != unix.EAGAIN {
		t.Errorf("after the end the session read %q, %v", r.Value, r.Errno)
	}
}

// A daemon that comes back knows what it issued, and clears what it did not.
func TestRestoreGrants(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/s/f", root+"/o/f")
	s := k.start(t, rules{})
	kept := Grant{Session: s.info.ID, Cgroup: s.info.Cgroup, Deadline: after(time.Hour), Files: files(policy.Read, root+"/s")}
	number := s.issue(kept)
	stray := s.issue(Grant{Deadline: after(time.Hour), Files: files(policy.Read, root+"/o")})
	s.allowed("open", root+"/o/f", "r")
	again := &Enforcer{maps: k.maps, full: k.full, pins: k.pins, cgroup: k.cgroup}
	if err := again.start(); err != nil {
		t.Fatal(err)
	}
	if err := again.RestoreGrants(map[uint32]Grant{number: kept}); err != nil {
		t.Fatal(err)
	}
	s.allowed("open", root+"/s/f", "r")
	s.denied("open", root+"/o/f", "r")
	if state, err := again.GrantState(stray); err != nil || !state.Revoked {
		t.Errorf("%+v, %v", state, err)
	}
	if got, err := again.Issue(kept); err != nil || got == number {
		t.Errorf("issue: %d, %v", got, err)
	} else if err := again.Forget(got); err != nil {
		t.Error(err)
	}
}
