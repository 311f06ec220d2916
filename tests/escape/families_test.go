// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// plain makes a socket, and nothing of it.
func plain(family, kind, protocol int) func(*field) error {
	return func(*field) error { return withSocket(family, kind, protocol, func(int) error { return nil }) }
}

// kind is a sort of socket that no session has a use for.
func kind(id, title, seen string, root bool, attack func(f *field) error) technique {
	return technique{
		id: id, title: title, hooks: "socket_create", basic: true, launch: true, root: root, seen: "socket socket " + seen, attack: attack,
		neighbour: plain(unix.AF_INET, unix.SOCK_STREAM, 0),
	}
}

// protocolTechniques use protocols of IP that policies don't speak of.
func protocolTechniques() []technique {
	send := func(make func(func(int) error) error) func(f *field) error {
		return func(f *field) error {
			return make(func(fd int) error { return unix.Sendto(fd, []byte("echo"), 0, inet(there, f.Other)) })
		}
	}
	return []technique{
		kind("udplite", "UDP-Lite, connected", "inet dgram 136", false, func(f *field) error {
			return udplite(func(fd int) error {
				if err := unix.Connect(fd, inet(there, f.Other)); err != nil {
					return err
				}
				_, err := unix.Write(fd, []byte("echo"))
				return err
			})
		}).missing("the kernel is built without UDP-Lite"),
		kind("udplite-to", "UDP-Lite, with an address", "inet dgram 136", false, send(udplite)).missing("the kernel is built without UDP-Lite"),
		kind("mptcp", "MPTCP, whose subflows the peer names", "inet stream 262", false, func(f *field) error {
			return mptcp(func(fd int) error { return reaches(fd, inet(there, f.Other)) })
		}),
		kind("mptcp-fast-open", "MPTCP with fast open", "inet stream 262", false, func(f *field) error {
			return mptcp(func(fd int) error { return sends(fd, inet(there, f.Other), unix.MSG_FASTOPEN) })
		}).missing("MPTCP has no fast open before 6.2"),
		kind("sctp", "SCTP, connected", "inet stream 132", false, func(f *field) error {
			return withSocket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, func(fd int) error { return arrived(dial(fd, inet(there, f.Other))) })
		}),
		kind("sctp-connectx", "SCTP, connected to several addresses by setsockopt", "inet stream 132", false, func(f *field) error {
			return withSocket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, func(fd int) error {
				to := raw4(there, f.Other)
				return arrived(setOption(fd, unix.IPPROTO_SCTP, 110, unsafe.Slice((*byte)(unsafe.Pointer(&to)), unsafe.Sizeof(to))))
			})
		}),
		kind("sctp-send", "SCTP, by sending", "inet seqpacket 132", false, send(func(use func(int) error) error {
			return withSocket(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, use)
		})),
		kind("raw", "a raw socket with an address", "inet raw 253", true, send(func(use func(int) error) error {
			return withSocket(unix.AF_INET, unix.SOCK_RAW, 253, use)
		})),
		kind("raw-connected", "a raw socket, connected", "inet raw 253", true, func(f *field) error {
			return withSocket(unix.AF_INET, unix.SOCK_RAW, 253, func(fd int) error {
				if err := unix.Connect(fd, inet(there, 0)); err != nil {
					return err
				}
				_, err := unix.Write(fd, []byte("echo"))
				return err
			})
		}),
		kind("raw-header", "a raw socket that makes its own IP header", "inet raw 255", true, func(f *field) error {
			return withSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, func(fd int) error {
				header := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 127, 0, 0, 1, 127, 0, 0, 5}
				return unix.Sendto(fd, header, 0, inet(there, 0))
			})
		}),
		kind("ping", "a ping socket", "inet dgram 1", false, func(f *field) error {
			return withSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, func(fd int) error {
				return unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 1}, 0, inet(there, 0))
			})
		}),
	}
}

// familyTechniques use other families of sockets.
func familyTechniques() []technique {
	return []technique{
		kind("packet", "a packet socket, below IP", "packet", true, func(f *field) error {
			return withSocket(unix.AF_PACKET, unix.SOCK_DGRAM, int(network(unix.ETH_P_IP)), func(fd int) error {
				to := &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_IP), Ifindex: 1}
				return unix.Sendto(fd, make([]byte, 20), 0, to)
			})
		}),
		kind("packet-old", "a packet socket of the old kind (SOCK_PACKET)", "packet 10 0", true, plain(unix.AF_INET, 10, 0)),
		kind("vsock", "a socket to the hypervisor or another machine (AF_VSOCK)", "vsock", false, func(f *field) error {
			return withSocket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, func(fd int) error {
				return unless(unix.Connect(fd, &unix.SockaddrVM{CID: 1, Port: 9}), unix.ECONNRESET)
			})
		}),
		kind("xdp", "a socket onto a device's queues (AF_XDP)", "xdp", true, plain(unix.AF_XDP, unix.SOCK_RAW, 0)),
		kind("key-socket", "a socket that changes IPsec policies (AF_KEY)", "15 raw 2", true, plain(unix.AF_KEY, unix.SOCK_RAW, 2)).missing("the kernel is built without it"),
		kind("alg", "a socket onto the kernel's ciphers (AF_ALG)", "alg", false, plain(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)),
		kind("netlink", "netlink of other kinds than routing (audit, netfilter, ...)", "netlink", false, func(f *field) error {
			for _, protocol := range []int{unix.NETLINK_NETFILTER, unix.NETLINK_AUDIT, unix.NETLINK_GENERIC, unix.NETLINK_SOCK_DIAG, unix.NETLINK_KOBJECT_UEVENT} {
				if err := plain(unix.AF_NETLINK, unix.SOCK_RAW, protocol)(f); err != nil {
					return err
				}
			}
			return nil
		}),
		kind("odd-families", "any other family that the kernel has", "", false, func(f *field) error {
			last := fmt.Errorf("none can be had")
			for family := 45; family > 0; family-- {
				switch family {
				case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_VSOCK, unix.AF_ALG, unix.AF_XDP:
					continue
				}
				for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
					err := plain(family, kind, 0)(f)
					if err == nil {
						return nil
					}
					last = fmt.Errorf("family %d: %w", family, err)
				}
			}
			return last
		}),
		{
			id: "route-change", title: "change addresses and routes by netlink", hooks: "capable", root: true, launch: true, seen: "capability privilege",
			attack: func(f *field) error { return addAddress([4]byte{127, 9, 9, 9}) }, basic: true,
			neighbour: plain(unix.AF_INET, unix.SOCK_STREAM, 0),
		},
	}
}

// addAddress gives the loopback interface an address by netlink.
func addAddress(address [4]byte) error {
	return withSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, func(fd int) error {
		request := struct {
			unix.NlMsghdr
			unix.IfAddrmsg
			unix.RtAttr
			address [4]byte
		}{
			unix.NlMsghdr{Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE},
			unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 32, Index: 1}, unix.RtAttr{Len: 8, Type: unix.IFA_LOCAL}, address,
		}
		request.NlMsghdr.Len = uint32(unsafe.Sizeof(request))
		b := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		answer := make([]byte, 256)
		if _, err := unix.Read(fd, answer); err != nil {
			return err
		}
		if code := *(*int32)(unsafe.Pointer(&answer[unix.NLMSG_HDRLEN])); code != 0 {
			return unix.Errno(-code)
		}
		return nil
	})
}
