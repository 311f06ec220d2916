// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// UnixSocket is one Unix socket of the namespace it was listed in.
type UnixSocket struct {
	Name      string // path as it was bound, "@" and the abstract name, or empty
	Connected bool
	Peer      uint32 // inode of the socket that it is connected to, or of the one that has yet to accept it; 0: unknown
}

// The layout of <linux/unix_diag.h>.
const (
	sizeofUnixRequest = 24
	sizeofUnixMessage = 16

	unixAttributeName    = 0
	unixAttributePeer    = 2
	unixAttributeWaiting = 3 // UNIX_DIAG_ICONS: who has connected and was not accepted
)

// Unix returns the Unix sockets of the namespace that it is called in, by inode.
func Unix() (map[uint32]UnixSocket, error) {
	for again := 0; ; again++ {
		r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		body := make([]byte, sizeofUnixRequest)
		body[0] = unix.AF_UNIX
		binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // all states
		binary.NativeEndian.PutUint32(body[12:], 1<<unixAttributeName|1<<unixAttributePeer|1<<unixAttributeWaiting)
		r.AddRawData(body)
		messages, err := r.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
		if errors.Is(err, nl.ErrDumpInterrupted) && again < maxDumps {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the Unix sockets: %w", err)
		}
		return unixSockets(messages)
	}
}

func unixSockets(messages [][]byte) (map[uint32]UnixSocket, error) {
	sockets := make(map[uint32]UnixSocket, len(messages))
	listener := map[uint32]uint32{} // by who waits for it
	for _, m := range messages {
		inode, s, waiting, err := parseUnix(m)
		if err != nil {
			return nil, fmt.Errorf("list the Unix sockets: %w", err)
		}
		sockets[inode] = s
		for ; len(waiting) >= 4; waiting = waiting[4:] {
			listener[binary.NativeEndian.Uint32(waiting)] = inode
		}
	}
	for inode, s := range sockets {
		if s.Connected && s.Peer == 0 { // its other end has no inode before it is accepted
			s.Peer = listener[inode]
			sockets[inode] = s
		}
	}
	return sockets, nil
}

// parseUnix reads a struct unix_diag_msg and its attributes. waiting is inodes of four
// bytes each.
func parseUnix(m []byte) (inode uint32, s UnixSocket, waiting []byte, err error) {
	if len(m) < sizeofUnixMessage {
		return 0, s, nil, fmt.Errorf("a message of %d bytes is too short", len(m))
	}
	attributes, err := nl.ParseRouteAttr(m[sizeofUnixMessage:])
	if err != nil {
		return 0, s, nil, err
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unixAttributeName:
			s.Name = unixName(string(a.Value))
		case a.Attr.Type == unixAttributePeer && len(a.Value) >= 4:
			s.Connected, s.Peer = true, binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == unixAttributeWaiting:
			waiting = a.Value
		}
	}
	return binary.NativeEndian.Uint32(m[4:]), s, waiting, nil
}

func unixName(raw string) string {
	if abstract, ok := strings.CutPrefix(raw, "\x00"); ok {
		return "@" + abstract
	}
	path, _, _ := strings.Cut(raw, "\x00")
	return path
}
