// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pusher is a server that sends to whoever comes, as fast as they take it.
type pusher struct {
	host   string
	port   int
	resets atomic.Int32 // connections that ended by a reset
}

func (p *pusher) String() string { return net.JoinHostPort(p.host, fmt.Sprint(p.port)) }

func (p *pusher) flag() string { return fmt.Sprintf("%s:%d", bracketed(p.host), p.port) }

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func newPusher(t *testing.T, network, host string) *pusher {
	t.Helper()
	p := &pusher{host: host}
	if network == "udp" {
		l, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		must(t, err)
		t.Cleanup(func() { l.Close() })
		p.port = l.LocalAddr().(*net.UDPAddr).Port
		go p.datagrams(l)
		return p
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p.port = l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.stream(c)
		}
	}()
	return p
}

func (p *pusher) stream(c net.Conn) {
	defer c.Close()
	chunk := make([]byte, 512)
	for {
		if _, err := c.Write(chunk); err != nil {
			if strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe") {
				p.resets.Add(1)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// datagrams sends for ever to each that has sent something.
func (p *pusher) datagrams(l net.PacketConn) {
	buffer := make([]byte, 512)
	for {
		_, from, err := l.ReadFrom(buffer)
		if err != nil {
			return
		}
		go func() {
			for {
				if _, err := l.WriteTo(make([]byte, 64), from); strings.Contains(fmt.Sprint(err), "closed") {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
}
