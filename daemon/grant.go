// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/policy"
)

// grant is access given to one session until a deadline. How it stands is the
// kernel's to say; this is what it was given for, and what became of it.
type grant struct {
	ID      string
	Number  uint32 // what the kernel calls it; 0: not yet known to have reached it
	Session string
	Agent   string
	Task    string

	Files   []grantedFile
	Network []grantedNetwork
	TTL     time.Duration
	Uses    uint32 // 0: any number
	Kill    bool   // a session that has mapped a file of it does not outlive it
	Reason  string
	By      string

	Issued   time.Time
	Begin    time.Duration // of the boot clock
	Deadline time.Duration // of the boot clock

	UsedUp bool      // it has no use left, and that is in the log
	Ended  time.Time // zero while it has not ended
	How    string    // it ended, see the endings
}

// How grants end.
const (
	endExpired  = "expired"
	endUsedUp   = "used up" // before its deadline; what was open stayed so until then
	endRevoked  = "revoked"
	endSession  = "session ended"
	endLost     = "lost" // the kernel does not have it
	stateLive   = "live"
	stateUsedUp = endUsedUp
)

// grantedFile is rights on a file or directory and everything below it.
type grantedFile struct {
	Path   string
	Access policy.Access
}

// grantedNetwork is addresses to connect to.
type grantedNetwork struct {
	Prefix    netip.Prefix
	Ports     []policy.PortSpan // none: all
	Transport policy.Transport
}

// kernel is what the kernel is told of the grant.
func (x *grant) kernel(session, cgroup uint64) bpf.Grant {
	g := bpf.Grant{Session: session, Cgroup: cgroup, Deadline: x.Deadline, Uses: x.Uses, Kill: x.Kill}
	for _, f := range x.Files {
		g.Files = append(g.Files, bpf.GrantFile{Path: f.Path, Access: f.Access})
	}
	for _, n := range x.Network {
		g.Network = append(g.Network, bpf.GrantNetwork{Prefix: n.Prefix, Protocol: uint8(n.Transport), Ports: n.eachPort()})
	}
	return g
}

// eachPort returns the ports one by one, each once; none: all.
func (n *grantedNetwork) eachPort() []uint16 {
	var ports []uint16
	for _, span := range n.Ports {
		for p := int(span.Low); p <= int(span.High); p++ {
			ports = append(ports, uint16(p))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// connects tells whether the grant lets a session connect to an address.
func (x *grant) connects(peer netip.AddrPort, protocol uint8) bool {
	return slices.ContainsFunc(x.Network, func(n grantedNetwork) bool {
		return uint8(n.Transport) == protocol && n.Prefix.Contains(peer.Addr()) && (len(n.Ports) == 0 ||
			slices.ContainsFunc(n.Ports, func(s policy.PortSpan) bool { return s.Low <= peer.Port() && peer.Port() <= s.High }))
	})
}

// opens returns the rights that the grant gives on a path.
func (x *grant) opens(path string) (access policy.Access) {
	for _, f := range x.Files {
		if path == f.Path || strings.HasPrefix(path, strings.TrimSuffix(f.Path, "/")+"/") {
			access |= f.Access
		}
	}
	return access
}

// resources is what the grant is for, in words.
func (x *grant) resources() string {
	var words []string
	for i := range x.Network {
		words = append(words, "connect "+x.Network[i].String())
	}
	for _, f := range x.Files {
		words = append(words, f.String())
	}
	return strings.Join(words, "; ")
}

// String returns the rights and the path: "read, write /data".
func (f grantedFile) String() string { return f.Access.String() + " " + f.Path }

// String returns the addresses as they are given: "10.0.0.0/8:443,8000-8099/tcp".
func (n *grantedNetwork) String() string {
	address, ports := n.address(), "*"
	if n.Prefix.Addr().Is6() {
		address = "[" + address + "]"
	}
	if len(n.Ports) > 0 {
		ports = strings.Join(n.portWords(), ",")
	}
	return address + ":" + ports + "/" + protocolName(uint16(n.Transport))
}

func (n *grantedNetwork) address() string {
	if n.Prefix.IsSingleIP() {
		return n.Prefix.Addr().String()
	}
	return n.Prefix.String()
}

func (n *grantedNetwork) portWords() []string {
	var words []string
	for _, s := range n.Ports {
		words = append(words, s.String())
	}
	return words
}

// transportOf returns the protocol of a name; without one, TCP.
func transportOf(name string) (policy.Transport, bool) {
	switch name {
	case "", "tcp":
		return unix.IPPROTO_TCP, true
	case "udp":
		return unix.IPPROTO_UDP, true
	}
	return 0, false
}
