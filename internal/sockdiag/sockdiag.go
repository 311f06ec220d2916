// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrUnsupported says that this kernel destroys no sockets.
var ErrUnsupported = errors.New("this kernel cannot destroy sockets: it was built without CONFIG_INET_DIAG_DESTROY")

// Socket is one TCP or UDP socket of the namespace it was listed in.
type Socket struct {
	Protocol uint8 // IPPROTO_TCP or IPPROTO_UDP
	Local    netip.AddrPort
	Peer     netip.AddrPort // the zero port: not connected. IPv4-mapped addresses are IPv4
	Inode    uint32         // as descriptors of it show; 0: it has none, or not yet
	Listens  bool

	family uint8
	id     [sizeofID]byte // as the kernel told it, cookie included
}

// The layout of <linux/inet_diag.h>.
const (
	sizeofID      = 48 // struct inet_diag_sockid: ports, addresses, interface, cookie
	sizeofRequest = 8 + sizeofID
	sizeofMessage = 4 + sizeofID + 20

	attributeBytecode = 1 // INET_DIAG_REQ_BYTECODE
	opcodeCgroup      = 13

	stateTimeWait = 6 // belongs to nobody any more
	stateListen   = 10
	inodeOffset   = 4 + sizeofID + 16
)

// List returns the sockets that were made in a cgroup, given by its id, in any
// state: listening and unconnected ones too.
func List(cgroup uint64) ([]Socket, error) {
	list, err := listBy(ofCgroup(cgroup))
	if err != nil {
		return nil, fmt.Errorf("list the sockets of a cgroup: %w", err)
	}
	return list, nil
}

// All returns the sockets of the namespace that it is called in, whoever made them.
func All() ([]Socket, error) {
	list, err := listBy(nil)
	if err != nil {
		return nil, fmt.Errorf("list the sockets of a network namespace: %w", err)
	}
	return list, nil
}

func listBy(filter []byte) ([]Socket, error) {
	var list []Socket
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			some, err := dump(family, protocol, filter)
			if err != nil {
				return nil, err
			}
			list = append(list, some...)
		}
	}
	return list, nil
}

// maxDumps bounds how often a dump is done again because sockets came and went.
const maxDumps = 10

func dump(family, protocol uint8, filter []byte) ([]Socket, error) {
	for again := 0; ; again++ {
		r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		body := request(family, protocol, ^uint32(1<<stateTimeWait), nil)
		r.AddRawData(append(body, filter...))
		messages, err := r.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
		if errors.Is(err, nl.ErrDumpInterrupted) && again < maxDumps {
			continue
		}
		if err != nil {
			return nil, err
		}
		list := make([]Socket, 0, len(messages))
		for _, m := range messages {
			s, err := parse(protocol, m)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	}
}

// request is a struct inet_diag_req_v2; id is of a socket, or nil for all.
func request(family, protocol uint8, states uint32, id []byte) []byte {
	b := make([]byte, sizeofRequest)
	b[0], b[1] = family, protocol
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[8:], id)
	return b
}

// ofCgroup is the attribute that has the kernel leave out the sockets of other
// cgroups: a program of one instruction, which goes on to its end where the
// cgroup is this one, and beyond it, which rejects, where it is not.
func ofCgroup(id uint64) []byte {
	const size = 4 + 8
	b := make([]byte, 4+size)
	binary.NativeEndian.PutUint16(b[0:], uint16(len(b)))
	binary.NativeEndian.PutUint16(b[2:], attributeBytecode)
	b[4], b[5] = opcodeCgroup, size
	binary.NativeEndian.PutUint16(b[6:], size+4)
	binary.NativeEndian.PutUint64(b[8:], id)
	return b
}

// parse reads the start of a struct inet_diag_msg.
func parse(protocol uint8, m []byte) (Socket, error) {
	if len(m) < sizeofMessage {
		return Socket{}, fmt.Errorf("a message of %d bytes is too short", len(m))
	}
	s := Socket{Protocol: protocol, family: m[0], id: [sizeofID]byte(m[4 : 4+sizeofID])}
	s.Local = netip.AddrPortFrom(s.address(4), binary.BigEndian.Uint16(s.id[0:]))
	s.Peer = netip.AddrPortFrom(s.address(20), binary.BigEndian.Uint16(s.id[2:]))
	s.Inode = binary.NativeEndian.Uint32(m[inodeOffset:])
	s.Listens = protocol == unix.IPPROTO_TCP && m[1] == stateListen
	return s, nil
}

func (s *Socket) address(at int) netip.Addr {
	if s.family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(s.id[at : at+4]))
	}
	return netip.AddrFrom16([16]byte(s.id[at : at+16])).Unmap()
}

// Destroy ends a socket of the namespace it is called in. The cookie that List
// learnt makes sure that it is no later one with the same addresses; one that has
// gone by itself is no error.
func (s *Socket) Destroy() error {
	r := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	r.AddRawData(request(s.family, s.Protocol, ^uint32(0), s.id[:]))
	_, err := r.Execute(unix.NETLINK_SOCK_DIAG, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		err = ErrUnsupported
	}
	return fmt.Errorf("destroy the socket to %s: %w", s.Peer, err)
}
