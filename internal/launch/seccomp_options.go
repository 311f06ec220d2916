// SPDX-License-Identifier: Apache-2.0

package launch

import "golang.org/x/sys/unix"

// Values that golang.org/x/sys/unix has no name for, or has for one machine only.
const (
	ipv6PktOptions   = 6          // IPV6_2292PKTOPTIONS
	flowLabelManager = 32         // IPV6_FLOWLABEL_MGR
	ipv6UnicastIf    = 76         // IPV6_UNICAST_IF
	freeze           = 0xc0045877 // FIFREEZE
	thaw             = 0xc0045878 // FITHAW
)

// optionRules refuse what makes a socket's packets other ones, or go elsewhere,
// than the address that the hooks saw. The forms that travel with a message are
// seen by the program that looks at each packet.
func optionRules() []callRule {
	option := func(why string, level uint32, names ...uint32) callRule {
		return callRule{name: "setsockopt", call: unix.SYS_SETSOCKOPT, errno: unix.EPERM, why: why, when: []match{
			{arg: 1, op: oneOf, mask: ^uint32(0), values: []uint32{level}},
			{arg: 2, op: oneOf, mask: ^uint32(0), values: names},
		}}
	}
	const (
		route  = "sends by another route or interface than the address has"
		tunnel = "wraps what is sent, for an address that no hook sees"
		forged = "uses addresses that are not this host's"
	)
	return []callRule{
		option(route, unix.SOL_SOCKET, unix.SO_MARK, unix.SO_BINDTODEVICE, unix.SO_BINDTOIFINDEX),
		option("runs programs of the kernel's that a session can't have made", unix.SOL_SOCKET, unix.SO_ATTACH_BPF, unix.SO_ATTACH_REUSEPORT_EBPF),
		option("IPv4 source routes", unix.IPPROTO_IP, unix.IP_OPTIONS),
		option(route, unix.IPPROTO_IP, unix.IP_UNICAST_IF),
		option(forged, unix.IPPROTO_IP, unix.IP_TRANSPARENT),
		option(tunnel, unix.IPPROTO_IP, unix.IP_IPSEC_POLICY, unix.IP_XFRM_POLICY),
		option("IPv6 routing headers, and options for the hosts on the way and at the end", unix.IPPROTO_IPV6,
			unix.IPV6_RTHDR, unix.IPV6_RTHDRDSTOPTS, unix.IPV6_HOPOPTS, unix.IPV6_DSTOPTS, ipv6PktOptions, flowLabelManager),
		option(route, unix.IPPROTO_IPV6, ipv6UnicastIf),
		option(forged, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT),
		option(tunnel, unix.IPPROTO_IPV6, unix.IPV6_IPSEC_POLICY, unix.IPV6_XFRM_POLICY),
		option("makes up a connection that was never made", unix.IPPROTO_TCP, unix.TCP_REPAIR),
		option(tunnel, unix.IPPROTO_UDP, unix.UDP_ENCAP),
	}
}

// requestRules refuse ioctls that reach beyond the file they are made on.
func requestRules() []callRule {
	request := func(why string, numbers ...uint32) callRule {
		return callRule{name: "ioctl", call: unix.SYS_IOCTL, errno: unix.EPERM, why: why,
			when: []match{{arg: 1, op: oneOf, mask: ^uint32(0), values: numbers}}}
	}
	return []callRule{
		request("typing into the terminal of whoever started the session", unix.TIOCSTI, unix.TIOCLINUX),
		request("takes over that terminal: its line discipline, the console's output, its end", unix.TIOCSETD, unix.TIOCCONS, unix.TIOCVHANGUP),
		request("stops a file system for the whole host", freeze, thaw),
	}
}
