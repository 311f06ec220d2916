// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addresses that the narrow policy allows on the field's port, and ones that it
// doesn't; all of them are this machine.
const (
	here  = "127.0.0.1"
	there = "127.0.0.2"
	here6 = "::1"
)

// inet returns the address of a literal with a port.
func inet(host string, port int) unix.Sockaddr {
	a := netip.MustParseAddr(host)
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

// withSocket makes a socket that waits for a second at most.
func withSocket(family, kind, protocol int, use func(fd int) error) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(patient(fd))
}

func patient(fd int) int {
	second := unix.Timeval{Sec: 1}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &second) // where it can't be set, nothing waits
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second)
	return fd
}

func stream(use func(fd int) error) error { return withSocket(unix.AF_INET, unix.SOCK_STREAM, 0, use) }
func stream6(use func(fd int) error) error {
	return withSocket(unix.AF_INET6, unix.SOCK_STREAM, 0, use)
}
func dgram(use func(fd int) error) error  { return withSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, use) }
func dgram6(use func(fd int) error) error { return withSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0, use) }
func udplite(use func(fd int) error) error {
	return withSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, use)
}
func mptcp(use func(fd int) error) error {
	return withSocket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, use)
}

// reaches connects, and has what it sends come back.
func reaches(fd int, to unix.Sockaddr) error {
	if err := dial(fd, to); err != nil {
		return err
	}
	return echoes(fd)
}

// dial connects, and takes the silence that follows a dropped packet for what it is.
func dial(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: no answer to the connection", errHeld)
	}
	return err
}

func echoes(fd int) error {
	if _, err := unix.Write(fd, []byte("echo")); err != nil {
		return err
	}
	return answers(fd)
}

func answers(fd int) error {
	b := make([]byte, 16)
	n, err := unix.Read(fd, b)
	if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
		return fmt.Errorf("%w: nothing came back", errHeld)
	}
	return err
}

// sends sends one datagram, and waits for the echo.
func sends(fd int, to unix.Sockaddr, flags int) error {
	if err := unix.Sendto(fd, []byte("echo"), flags|unix.MSG_NOSIGNAL, to); err != nil {
		if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("%w: no answer", errHeld)
		}
		return err
	}
	return answers(fd)
}

// sendsAs sends to an IPv4 address whose family is said to be another.
func sendsAs(fd int, family uint16, host string, port int) error {
	sa := unix.RawSockaddrInet4{Family: family, Port: network(port), Addr: netip.MustParseAddr(host).As4()}
	b := []byte("echo")
	if err := call(unix.SYS_SENDTO, uintptr(fd), pointer(&b[0]), uintptr(len(b)), 0, pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return err
	}
	return answers(fd)
}

// network puts a port in network order.
func network(port int) uint16 { return uint16(port)<<8 | uint16(port)>>8 }

// disconnect ends the association of a socket.
func disconnect(fd int) error {
	var sa unix.RawSockaddr
	return call(unix.SYS_CONNECT, uintptr(fd), pointer(&sa), unsafe.Sizeof(sa))
}

// sendsMany sends datagrams with one call, the last one to there; all must go.
func sendsMany(fd int, to ...unix.RawSockaddrInet4) error {
	type message struct {
		header unix.Msghdr
		_      uint32 // how much was sent
	}
	b := []byte("echo")
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	messages := make([]message, len(to))
	for i := range to {
		messages[i].header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to[i])), Namelen: uint32(unsafe.Sizeof(to[i])), Iov: &iov, Iovlen: 1}
	}
	n, err := value(unix.SYS_SENDMMSG, uintptr(fd), pointer(&messages[0]), uintptr(len(messages)))
	if err == nil && n < len(to) {
		err = fmt.Errorf("%w: %d of %d were sent", errHeld, n, len(to))
	}
	return err
}

func raw4(host string, port int) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: network(port), Addr: netip.MustParseAddr(host).As4()}
}

// ancillary makes ancillary data.
func ancillary(level, kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// sendsWith sends a datagram with ancillary data; that it left is enough.
func sendsWith(fd int, to unix.Sockaddr, oob []byte) error {
	_, err := unix.SendmsgN(fd, []byte("echo"), oob, to, 0)
	return err
}

// segments is a routing header of type 4 by way of an address.
func segments(via string) []byte {
	a := netip.MustParseAddr(via).As16()
	return append([]byte{0, 4, 4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, a[:]...)
}

// mobile is a routing header of type 2, the only one that goes with a message.
func mobile(via string) []byte {
	a := netip.MustParseAddr(via).As16()
	return append([]byte{0, 2, 2, 1, 0, 0, 0, 0}, a[:]...)
}

// sourceRoute is an IPv4 loose source route by way of an address.
func sourceRoute(via string) []byte {
	a := netip.MustParseAddr(via).As4()
	return append([]byte{0x83, 7, 4}, append(a[:], 0)...)
}

func setOption(fd, level, name int, data []byte) error {
	return unix.SetsockoptString(fd, level, name, string(data))
}

// arrived treats an answer of the other side's kernel as success: what was sent got there.
func arrived(err error) error { return unless(err, unix.ECONNREFUSED, unix.ECONNRESET) }
