// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func netProbes() map[string]operation {
	return map[string]operation{
		"socket": newSocket,
		"socketpair": func(arg func(int) string) (string, error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, flags(arg(0), socketWords())|unix.SOCK_CLOEXEC, 0)
			return fmt.Sprint(fds[0], " ", fds[1]), err
		},
		"connect": func(arg func(int) string) (string, error) {
			if arg(1) == "unspec" {
				return "", connectUnspec(number(arg(0)))
			}
			return "", unix.Connect(number(arg(0)), sockaddr(arg(1)))
		},
		"bind":   func(arg func(int) string) (string, error) { return "", unix.Bind(number(arg(0)), sockaddr(arg(1))) },
		"listen": func(arg func(int) string) (string, error) { return "", unix.Listen(number(arg(0)), 8) },
		"name": func(arg func(int) string) (string, error) {
			sa, err := unix.Getsockname(number(arg(0)))
			return portOf(sa), err
		},
		"accept": func(arg func(int) string) (string, error) {
			fd, _, err := unix.Accept4(number(arg(0)), unix.SOCK_CLOEXEC)
			return fmt.Sprint(fd), err
		},
		"send": func(arg func(int) string) (string, error) {
			return "", unix.Send(number(arg(0)), []byte(arg(1)), unix.MSG_NOSIGNAL)
		},
		"sendto": func(arg func(int) string) (string, error) {
			return "", unix.Sendto(number(arg(0)), []byte("x"), unix.MSG_NOSIGNAL|flags(arg(2), map[string]int{"fastopen": unix.MSG_FASTOPEN}), sockaddr(arg(1)))
		},
		"sendraw":  sendRaw,
		"sendmmsg": sendMany,
		"sendmsg": func(arg func(int) string) (string, error) {
			n, err := unix.SendmsgN(number(arg(0)), []byte("x"), control(arg(2)), sockaddr(arg(1)), 0)
			return fmt.Sprint(n), err
		},
		"recv": func(arg func(int) string) (string, error) {
			b := make([]byte, 4096)
			n, _, err := unix.Recvfrom(number(arg(0)), b, 0)
			return string(b[:max(n, 0)]), err
		},
		// Passes an open file on by a Unix socket, and takes one.
		"give": func(arg func(int) string) (string, error) {
			return "", unix.Sendmsg(number(arg(0)), []byte("x"), unix.UnixRights(number(arg(1))), nil, 0)
		},
		"take": func(arg func(int) string) (string, error) {
			fd, err := takeDescriptor(number(arg(0)))
			return fmt.Sprint(fd), err
		},
		"setsockopt": func(arg func(int) string) (string, error) {
			return "", unix.SetsockoptString(number(arg(0)), number(arg(1)), number(arg(2)), arg(3))
		},
	}
}

func socketWords() map[string]int {
	return map[string]int{
		"stream": unix.SOCK_STREAM, "dgram": unix.SOCK_DGRAM, "raw": unix.SOCK_RAW, "seqpacket": unix.SOCK_SEQPACKET,
		"unix": unix.AF_UNIX, "inet": unix.AF_INET, "inet6": unix.AF_INET6, "netlink": unix.AF_NETLINK,
		"packet": unix.AF_PACKET, "vsock": unix.AF_VSOCK, "alg": unix.AF_ALG, "key": unix.AF_KEY,
		"": 0, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "sctp": unix.IPPROTO_SCTP,
		"udplite": unix.IPPROTO_UDPLITE, "mptcp": unix.IPPROTO_MPTCP, "audit": unix.NETLINK_AUDIT,
	}
}

// newSocket makes a socket whose calls end after a second. A dropped SYN shows
// as EINPROGRESS then.
func newSocket(arg func(int) string) (string, error) {
	words := socketWords()
	fd, err := unix.Socket(words[arg(0)], words[arg(1)]|unix.SOCK_CLOEXEC, words[arg(2)])
	if err != nil {
		return "", err
	}
	second := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &second); err != nil {
		return "", err
	}
	return fmt.Sprint(fd), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second)
}

// sockaddr reads "127.0.0.1:80", "[::1]:80", "unix:/path" or "unix:@name".
func sockaddr(s string) unix.Sockaddr {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return &unix.SockaddrUnix{Name: path}
	}
	ap := netip.MustParseAddrPort(s)
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

func portOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprint(sa.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprint(sa.Port)
	}
	return ""
}

func connectUnspec(fd int) error {
	var sa unix.RawSockaddr
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return errno
	}
	return nil
}

// sendRaw sends to an IPv4 address whose sockaddr says the family given.
func sendRaw(arg func(int) string) (string, error) {
	ap := netip.MustParseAddrPort(arg(1))
	sa := unix.RawSockaddrInet4{Family: uint16(number(arg(2))), Port: bigEndian(ap.Port()), Addr: ap.Addr().As4()}
	b := []byte("x")
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(number(arg(0))), uintptr(unsafe.Pointer(&b[0])), 1, 0,
		uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return "", errno
	}
	return "", nil
}

// sendMany sends one datagram to each IPv4 address with one call, and returns how many went.
func sendMany(arg func(int) string) (string, error) {
	type message struct {
		header unix.Msghdr
		len    uint32
	}
	var messages []message
	b := []byte("x")
	iov := unix.Iovec{Base: &b[0], Len: 1}
	for text := range strings.FieldsSeq(arg(1)) {
		ap := netip.MustParseAddrPort(text)
		sa := &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: bigEndian(ap.Port()), Addr: ap.Addr().As4()}
		m := message{}
		m.header.Name, m.header.Namelen = (*byte)(unsafe.Pointer(sa)), uint32(unsafe.Sizeof(*sa))
		m.header.Iov, m.header.Iovlen = &iov, 1
		messages = append(messages, m)
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(number(arg(0))), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	if errno != 0 {
		return "", errno
	}
	return fmt.Sprint(n), nil
}

// control returns ancillary data that routes a packet by way of another address.
func control(kind string) []byte {
	message := func(level, option int32, data []byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(data)))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = level, option
		h.SetLen(unix.CmsgLen(len(data)))
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	switch kind {
	case "":
		return nil
	case "retopts": // loose source route by 127.0.0.9
		return message(unix.IPPROTO_IP, unix.IP_RETOPTS, []byte(sourceRoute()))
	case "dstopts": // an empty destination options header
		return message(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0})
	}
	panic("no control data " + kind)
}

// takeDescriptor receives one; EACCES: the message came without it.
func takeDescriptor(from int) (int, error) {
	b, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(from, b, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return -1, unix.EACCES
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1, unix.EACCES
	}
	return fds[0], nil
}

func sourceRoute() string { return "\x83\x07\x04\x7f\x00\x00\x09\x00" }
