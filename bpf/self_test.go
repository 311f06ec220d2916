// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"
	"testing"
)

// `to: self` is what the session itself listens on, and nothing else on loopback.
func TestSelf(t *testing.T) {
	k := basic(t)
	network(t)
	foreign, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	foreignUDP, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreignUDP.Close()
	s := k.start(t, rules{network: []string{
		"{allow: connect, to: self}", "{allow: listen, ports: [3000]}", "{deny: connect, ip: 127.0.0.1, ports: [4000]}",
	}})
	other := k.session(t, testSubject)
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		fd := s.socketOf("stream", host+":0")
		s.allowed("bind", fd, host+":0")
		s.allowed("listen", fd)
		address := host + ":" + s.allowed("name", fd).Value
		s.talksTo(t, fd, address)
		other.denied("connect", other.socketOf("stream", address), address)
		other.denied("sendto", other.socketOf("stream", address), address, "fastopen")

		server := s.socketOf("dgram", host+":0")
		s.allowed("bind", server, host+":0")
		address = host + ":" + s.allowed("name", server).Value
		client := s.socketOf("dgram", address)
		s.allowed("sendto", client, address)
		if got := s.allowed("recv", server).Value; got != "x" {
			t.Errorf("%s: read %q", address, got)
		}
		back := host + ":" + s.allowed("name", client).Value
		s.allowed("sendto", server, back)
		if got := s.allowed("recv", client).Value; got != "x" {
			t.Errorf("%s: read %q", back, got)
		}
		other.denied("sendto", other.socketOf("dgram", address), address)
	}
	s.denied("connect", s.socketOf("stream", ""), foreign.Addr().String())
	s.denied("connect", s.socketOf("stream", "[::1]"), "[::ffff:127.0.0.1]:"+portOnly(foreign.Addr()))
	s.denied("sendto", s.socketOf("stream", ""), foreign.Addr().String(), "fastopen")
	s.denied("sendto", s.socketOf("dgram", ""), foreignUDP.LocalAddr().String())
	s.denied("connect", s.socketOf("stream", ""), "127.0.0.1:1")

	any := s.socketOf("stream", "")
	s.allowed("bind", any, "0.0.0.0:3000")
	s.allowed("listen", any)
	s.talksTo(t, any, "127.0.0.1:3000")
	s.talksTo(t, any, "0.0.0.0:3000")

	denied := s.socketOf("stream", "")
	s.do("bind", denied, "127.0.0.1:4000")
	s.do("listen", denied)
	s.denied("connect", s.socketOf("stream", ""), "127.0.0.1:4000")
}

func portOnly(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		panic(err)
	}
	return port
}

// talksTo connects a session to its own listener and sends both ways.
func (s *confined) talksTo(t *testing.T, listener, address string) {
	t.Helper()
	client := s.socketOf("stream", address)
	s.allowed("connect", client, address)
	server := s.allowed("accept", listener).Value
	s.allowed("send", client, "question")
	if got := s.allowed("recv", server).Value; got != "question" {
		t.Errorf("%s: the server read %q", address, got)
	}
	s.allowed("send", server, "answer")
	if got := s.allowed("recv", client).Value; got != "answer" {
		t.Errorf("%s: the client read %q", address, got)
	}
	s.allowed("close", client)
	s.allowed("close", server)
}

// Without the rule there is no way, even to the session's own listener.
func TestNoSelf(t *testing.T) {
	k := basic(t)
	network(t)
	s := k.start(t, rules{network: []string{"{allow: listen, ports: [3000]}"}})
	fd := s.socketOf("stream", "")
	s.allowed("bind", fd, "127.0.0.1:3000")
	s.allowed("listen", fd)
	s.denied("connect", s.socketOf("stream", ""), "127.0.0.1:3000")
}
