// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// connectTechniques open connections that the policy does not allow.
func connectTechniques() []technique {
	near := func(f *field) error { return stream(func(fd int) error { return reaches(fd, inet(here, f.Port)) }) }
	near6 := func(f *field) error { return stream6(func(fd int) error { return reaches(fd, inet(here6, f.Port)) }) }
	to := func(id, title string, make func(func(int) error) error, host string, seen string, neighbour func(*field) error) technique {
		return technique{
			id: id, title: title, hooks: "socket_connect, connect4/6, egress", basic: true, neighbour: neighbour, seen: seen,
			attack: func(f *field) error { return make(func(fd int) error { return reaches(fd, inet(host, f.Other)) }) },
		}
	}
	return []technique{
		to("connect-address", "connect to an address that is not allowed", stream, there, "connect default 127.0.0.2:%OTHER%/tcp", near),
		to("connect-port", "connect to a port that is not allowed", stream, here, "connect default 127.0.0.1:%OTHER%/tcp", near),
		to("connect-zero", "connect to 0.0.0.0, which is this machine", stream, "0.0.0.0", "connect default 127.0.0.1:%OTHER%/tcp",
			func(f *field) error {
				return stream(func(fd int) error { return reaches(fd, inet("0.0.0.0", f.Port)) })
			}),
		to("connect-6", "connect by IPv6", stream6, here6, "connect default ::1:%OTHER%/tcp", near6),
		to("connect-zero6", "connect to ::, which is this machine", stream6, "::", "connect default ::1:%OTHER%/tcp",
			func(f *field) error { return stream6(func(fd int) error { return reaches(fd, inet("::", f.Port)) }) }),
		to("connect-mapped", "connect to an IPv4 address in IPv6 form", stream6, "::ffff:127.0.0.2", "connect default 127.0.0.2:%OTHER%/tcp",
			func(f *field) error {
				return stream6(func(fd int) error { return reaches(fd, inet("::ffff:127.0.0.1", f.Port)) })
			}),
		{
			id: "connect-again", title: "connect where allowed, disconnect with AF_UNSPEC, connect elsewhere",
			hooks: "socket_connect, connect4/6", basic: true, seen: "connect default 127.0.0.2:%PORT%/tcp",
			attack: func(f *field) error {
				return stream(func(fd int) error {
					err := errors.Join(dial(fd, inet(here, f.Port)), disconnect(fd))
					if err != nil {
						return fmt.Errorf("before the attack: %v", err)
					}
					return reaches(fd, inet(there, f.Port))
				})
			},
			neighbour: near,
		},
		fastOpen("fast-open", "connect by sending, with MSG_FASTOPEN", func(fd int, f *field) error { return sends(fd, inet(there, f.Other), unix.MSG_FASTOPEN) },
			func(fd int, f *field) error { return sends(fd, inet(here, f.Port), unix.MSG_FASTOPEN) },
			"send default 127.0.0.2:%OTHER%/tcp"),
		fastOpen("fast-open-connect", "connect later, with TCP_FASTOPEN_CONNECT", func(fd int, f *field) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1), reaches(fd, inet(there, f.Other)))
		}, func(fd int, f *field) error { return reaches(fd, inet(here, f.Port)) }, "connect default 127.0.0.2:%OTHER%/tcp"),
		{
			id: "connect-repair", title: "declare a socket connected (TCP_REPAIR)", hooks: "socket_connect, socket_setsockopt, capable", root: true, launch: true,
			seen: "connect default 127.0.0.2:%OTHER%/tcp | option | capability privilege", neighbour: near,
			attack: func(f *field) error {
				return stream(func(fd int) error {
					if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
						return err
					}
					return dial(fd, inet(there, f.Other))
				})
			},
		},
		{
			id: "metadata", title: "reach the metadata address of a cloud", hooks: "socket_connect, connect4/6", basic: true, loose: true,
			attack: func(f *field) error {
				return stream(func(fd int) error { return reaches(fd, inet("169.254.169.254", f.Other)) })
			},
			neighbour: near, seen: "connect builtin/metadata 169.254.169.254",
		},
	}
}

func fastOpen(id, title string, attack, neighbour func(int, *field) error, seen string) technique {
	return technique{
		id: id, title: title, hooks: "socket_sendmsg, socket_connect, connect4/6, egress", basic: true, seen: seen,
		attack:    func(f *field) error { return stream(func(fd int) error { return attack(fd, f) }) },
		neighbour: func(f *field) error { return stream(func(fd int) error { return neighbour(fd, f) }) },
	}
}

// datagramTechniques send datagrams where the policy does not allow it.
func datagramTechniques() []technique {
	near := func(f *field) error { return dgram(func(fd int) error { return sends(fd, inet(here, f.Port), 0) }) }
	seen := "send default 127.0.0.2:%PORT%/udp"
	send := func(id, title string, attack func(fd int, f *field) error) technique {
		return technique{
			id: id, title: title, hooks: "socket_sendmsg, sendmsg4/6, egress", basic: true, seen: seen, neighbour: near,
			attack: func(f *field) error { return dgram(func(fd int) error { return attack(fd, f) }) },
		}
	}
	six := func(x technique, attack func(fd int, f *field) error) technique {
		x.attack = func(f *field) error { return dgram6(func(fd int) error { return attack(fd, f) }) }
		return x
	}
	return []technique{
		send("datagram", "send a datagram", func(fd int, f *field) error { return sends(fd, inet(there, f.Port), 0) }),
		send("datagram-connected", "connect a datagram socket where allowed, then send elsewhere", func(fd int, f *field) error {
			if err := unix.Connect(fd, inet(here, f.Port)); err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			return sends(fd, inet(there, f.Port), 0)
		}),
		send("datagrams", "send many with one call, the first ones where allowed", func(fd int, f *field) error {
			return sendsMany(fd, raw4(here, f.Port), raw4(here, f.Port), raw4(there, f.Port))
		}),
		send("datagram-unspec", "send with the address family left open", func(fd int, f *field) error { return sendsAs(fd, unix.AF_UNSPEC, there, f.Port) }),
		six(send("datagram-4in6", "send to an IPv4 address from an IPv6 socket", nil),
			func(fd int, f *field) error { return sendsAs(fd, unix.AF_INET, there, f.Port) }),
		six(send("datagram-mapped", "send to an IPv4 address in IPv6 form", nil),
			func(fd int, f *field) error { return sends(fd, inet("::ffff:127.0.0.2", f.Port), 0) }),
	}
}

// routeTechniques name one address, and have the packet go to another.
func routeTechniques() []technique {
	near6 := func(f *field) error { return dgram6(func(fd int) error { return sends(fd, inet(here6, f.Port), 0) }) }
	near := func(f *field) error { return dgram(func(fd int) error { return sends(fd, inet(here, f.Port), 0) }) }
	packet := func(id, title, seen string, launch bool, attack func(fd int, f *field) error) technique {
		return technique{
			id: id, title: title, hooks: "socket_setsockopt, egress", basic: true, launch: launch, seen: seen, neighbour: near6,
			attack: func(f *field) error { return dgram6(func(fd int) error { return attack(fd, f) }) },
		}
	}
	four := func(x technique, attack func(fd int, f *field) error) technique {
		x.attack = func(f *field) error { return dgram(func(fd int) error { return attack(fd, f) }) }
		x.neighbour = near
		return x
	}
	option := func(level, name int, data []byte) func(int, *field) error {
		return func(fd int, f *field) error {
			if err := setOption(fd, level, name, data); err != nil {
				return err
			}
			if level == unix.IPPROTO_IP {
				return sendsWith(fd, inet(here, f.Port), nil)
			}
			return sendsWith(fd, inet(here6, f.Port), nil)
		}
	}
	empty := []byte{0, 0, 1, 4, 0, 0, 0, 0}
	return []technique{
		packet("routing-header", "an IPv6 routing header by setsockopt", "option | packet socket", true, option(unix.IPPROTO_IPV6, unix.IPV6_RTHDR, segments("fd00:9::2"))),
		packet("routing-header-late", "an IPv6 routing header on a socket that is connected where allowed", "option | packet socket", true, func(fd int, f *field) error {
			if err := unix.Connect(fd, inet(here6, f.Port)); err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			if err := setOption(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, segments("fd00:9::2")); err != nil {
				return err
			}
			return sendsWith(fd, nil, nil)
		}),
		packet("routing-header-message", "an IPv6 routing header with one message", "packet socket | capability privilege", true, func(fd int, f *field) error {
			return sendsWith(fd, inet(here6, f.Port), ancillary(unix.IPPROTO_IPV6, unix.IPV6_RTHDR, mobile("fd00:9::2")))
		}),
		packet("destination-options", "IPv6 destination options with one message", "packet socket | capability privilege", true, func(fd int, f *field) error {
			return sendsWith(fd, inet(here6, f.Port), ancillary(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, empty))
		}),
		four(packet("source-route", "an IPv4 source route by setsockopt", "option | packet socket", true, nil),
			option(unix.IPPROTO_IP, unix.IP_OPTIONS, sourceRoute(there))),
		four(packet("source-route-message", "an IPv4 source route with one message", "packet socket | capability privilege", true, nil), func(fd int, f *field) error {
			return sendsWith(fd, inet(here, f.Port), ancillary(unix.IPPROTO_IP, unix.IP_RETOPTS, sourceRoute(there)))
		}),
		four(packet("ip-options", "IPv4 options of any kind", "option | packet socket", true, nil), option(unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0})),
		setting("option-mark", "mark packets for other routes (SO_MARK)", true, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 7) }),
		setting("option-device", "bind a socket to an interface (SO_BINDTODEVICE)", false, func(fd int) error { return unix.BindToDevice(fd, "lo") }),
		setting("option-multicast", "join a multicast group", false, func(fd int) error {
			return unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: [4]byte{239, 1, 1, 1}, Interface: [4]byte{127, 0, 0, 1}})
		}),
		setting("option-flow-label", "manage the labels of flows (IPV6_FLOWLABEL_MGR)", false, nil).six(func(fd int) error {
			request := make([]byte, 32) // in6_flowlabel_req: to ::1, get, exclusive, create
			request[15], request[21], request[22] = 1, 1, 1
			return setOption(fd, unix.IPPROTO_IPV6, 32, request)
		}),
		setting("option-transparent", "take over foreign addresses (IP_TRANSPARENT)", true, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1) }),
	}
}

// setting is an option that no session has a use for.
func setting(id, title string, root bool, set func(fd int) error) technique {
	return technique{
		id: id, title: title, hooks: "socket_setsockopt", basic: id != "option-multicast", launch: true, root: root, seen: "option | capability privilege",
		attack: func(f *field) error { return dgram(set) },
		neighbour: func(f *field) error {
			return dgram(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8192) })
		},
	}
}

// six has an option set on a socket of IPv6.
func (t technique) six(set func(fd int) error) technique {
	t.attack = func(f *field) error { return dgram6(set) }
	return t
}

// listenTechniques let others in.
func listenTechniques() []technique {
	listens := func(host string, port int) error {
		return stream(func(fd int) error {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // an earlier try may linger
			if err := unix.Bind(fd, inet(host, port)); err != nil {
				return err
			}
			return unix.Listen(fd, 1)
		})
	}
	near := func(f *field) error { return listens(here, f.Serve) }
	return []technique{
		{
			id: "listen", title: "listen on a port that is not allowed", hooks: "socket_listen, bind4/6", basic: true,
			attack: func(f *field) error { return listens(here, f.Serve+1) }, neighbour: near, seen: "listen default 127.0.0.1:",
		},
		{
			id: "listen-everywhere", title: "listen on all addresses where one is allowed", hooks: "socket_listen, bind4/6", basic: true,
			attack: func(f *field) error { return listens("0.0.0.0", f.Serve) }, neighbour: near, seen: "listen default 0.0.0.0:%SERVE%/tcp",
		},
		{
			id: "listen-unbound", title: "listen without binding: the kernel chooses a port", hooks: "socket_listen",
			attack: func(f *field) error { return stream(func(fd int) error { return unix.Listen(fd, 1) }) }, neighbour: near, seen: "listen default 0.0.0.0:0/tcp",
		},
		{
			id: "bind-datagram", title: "take datagrams on a port that is not allowed", hooks: "socket_bind, bind4/6", basic: true,
			attack:    func(f *field) error { return dgram(func(fd int) error { return unix.Bind(fd, inet(here, f.Serve+1)) }) },
			neighbour: func(f *field) error { return dgram(func(fd int) error { return unix.Bind(fd, inet(here, f.Serve)) }) },
			seen:      "bind default 127.0.0.1:",
		},
	}
}
