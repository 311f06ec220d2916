// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// listenUnix serves, outside any session, at an address as probes write it.
func listenUnix(t *testing.T, network, name string) {
	t.Helper()
	if network == "unixgram" {
		c, err := net.ListenUnixgram(network, &net.UnixAddr{Name: name, Net: network})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: name, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
}

// The peer decides, by where it is bound, whatever name was used to reach it.
func TestUnixSockets(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/good/x", root+"/bad/x", root+"/good/bind/x", root+"/bad/bind/x", root+"/both/x")
	networks := map[string]string{"stream": "unix", "seqpacket": "unixpacket", "dgram": "unixgram"}
	unique := fmt.Sprint("bailiff", os.Getpid())
	for kind, network := range networks {
		listenUnix(t, network, root+"/good/"+kind)
		listenUnix(t, network, root+"/bad/"+kind)
		for _, name := range []string{"-good", "-bad", "-glob-1", "-glob-2x", "-goody"} {
			listenUnix(t, network, "@"+unique+kind+name)
		}
		if err := os.Symlink("../bad/"+kind, root+"/good/link-"+kind); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../good/"+kind, root+"/bad/link-"+kind); err != nil {
			t.Fatal(err)
		}
	}
	bind(t, root+"/bad", root+"/good/bind")
	r := rules{
		network: []string{"{allow: connect, unix: " + root + "/good}"},
		files:   []string{path("read, write, create, delete", root)},
	}
	for kind := range networks {
		r.network = append(r.network, fmt.Sprintf("{allow: connect, unix: '@%s%s-good'}", unique, kind),
			fmt.Sprintf("{allow: connect, unix: '@%s%s-glob-*'}", unique, kind), fmt.Sprintf("{deny: connect, unix: '@%s%s-glob-2*'}", unique, kind))
	}
	s := k.start(t, r)
	for kind := range networks {
		for name, want := range map[string]bool{
			root + "/good/" + kind: true, root + "/bad/" + kind: false,
			root + "/good/link-" + kind: false, root + "/bad/link-" + kind: true,
			root + "/good/bind/" + kind: false, root + "/good/../bad/" + kind: false,
			"@" + unique + kind + "-good": true, "@" + unique + kind + "-bad": false, "@" + unique + kind + "-goody": false,
			"@" + unique + kind + "-glob-1": true, "@" + unique + kind + "-glob-2x": false,
		} {
			fd := s.allowed("socket", "unix", kind, "").Value
			if want {
				s.allowed("connect", fd, "unix:"+name)
			} else {
				s.want(unix.EACCES, "connect", fd, "unix:"+name)
			}
			if kind == "dgram" {
				fd := s.allowed("socket", "unix", kind, "").Value
				if errno := s.do("sendto", fd, "unix:"+name).Errno; (errno == 0) != want {
					t.Errorf("sendto %s: %v, want allowed: %v", name, errno, want)
				}
			}
		}
	}
}

func TestUnixSelf(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	if err := os.Mkdir(root+"/w", 0o755); err != nil {
		t.Fatal(err)
	}
	listenUnix(t, "unix", root+"/w/foreign")
	r := rules{
		files:   []string{path("read, write, create", root+"/w")},
		network: []string{"{allow: connect, to: self}"},
	}
	s := k.start(t, r)
	other := k.session(t, testSubject)
	for i, name := range []string{root + "/w/own", fmt.Sprint("@bailiff-own", os.Getpid())} {
		fd := s.allowed("socket", "unix", "stream", "").Value
		s.allowed("bind", fd, "unix:"+name)
		s.allowed("listen", fd)
		s.allowed("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:"+name)
		other.denied("connect", other.allowed("socket", "unix", "stream", "").Value, "unix:"+name)
		dgram := s.allowed("socket", "unix", "dgram", "").Value
		s.allowed("bind", dgram, fmt.Sprint("unix:", name, i))
		s.allowed("sendto", s.allowed("socket", "unix", "dgram", "").Value, fmt.Sprint("unix:", name, i))
		other.denied("sendto", other.allowed("socket", "unix", "dgram", "").Value, fmt.Sprint("unix:", name, i))
	}
	s.denied("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:"+root+"/w/foreign")

	var a, b int
	for _, kind := range []string{"stream", "dgram", "seqpacket"} {
		if _, err := fmt.Sscan(s.allowed("socketpair", kind).Value, &a, &b); err != nil {
			t.Fatal(err)
		}
		s.allowed("send", a, "x")
		s.allowed("recv", b)
	}

	r.network = nil
	s = k.start(t, r)
	fd := s.allowed("socket", "unix", "stream", "").Value
	s.allowed("bind", fd, "unix:"+root+"/w/own2")
	s.allowed("listen", fd)
	s.denied("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:"+root+"/w/own2")
}

// What is told of a connection.
func TestSocketEvents(t *testing.T) {
	k := full(t)
	network(t, "10.9.0.1/24")
	root := kerneltest.TmpfsDir(t)
	listenUnix(t, "unix", root+"/sock")
	abstract := fmt.Sprint("bailiff-event", os.Getpid())
	listenUnix(t, "unix", "@"+abstract)
	set := k.apply(t, rules{network: []string{"{allow: connect, ip: 10.9.0.1, ports: [8000]}"}})
	s := k.session(t, testSubject)
	s.do("connect", s.socketOf("stream", ""), "10.9.0.1:8000")
	s.do("connect", s.socketOf("stream", ""), "10.9.0.1:8001")
	s.do("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:"+root+"/sock")
	s.do("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:@"+abstract)
	var inet []*Event
	for _, ev := range k.events(t) {
		switch {
		case ev.Operation == "connect":
			inet = append(inet, ev)
		case ev.Operation == "unix-connect" && ev.Abstract:
			if ev.Path[1] != abstract || ev.Verdict != "deny" || ev.Kind != "unix" {
				t.Errorf("abstract: %+v", ev)
			}
			abstract = ""
		case ev.Operation == "unix-connect":
			if !ev.Unix || fmt.Sprint(ev.Path) != fmt.Sprint(components(root+"/sock")) {
				t.Errorf("unix: %+v", ev)
			}
			root = ""
		}
	}
	if root != "" || abstract != "" {
		t.Error("no event of a Unix socket")
	}
	if len(inet) != 2 {
		t.Fatalf("%d events of two connects", len(inet))
	}
	for i, want := range []Event{
		{Verdict: "allow", Port: 8000, Reason: "rule"}, {Verdict: "deny", Port: 8001, Reason: "default"},
	} {
		got := inet[i]
		if got.Verdict != want.Verdict || got.Port != want.Port || got.Reason != want.Reason || got.Address.String() != "10.9.0.1" ||
			got.Transport != unix.IPPROTO_TCP || got.PID != s.cmd.Process.Pid || got.Executable != executable() {
			t.Errorf("connect: %+v", got)
		}
	}
	if got := set.Rules[inet[0].Rule].ID; got != "p/network/0" {
		t.Errorf("allowed by %q", got)
	}
}
