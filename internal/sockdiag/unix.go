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
	Name string // path as it was bound, "@" and the abstract name, or empty
	Peer uint32 // inode of the socket that it is connected to; 0: to none
}

// The layout of <linux/unix_diag.h>.
const (
	sizeofUnixRequest = 24
	sizeofUnixMessage = 16

	unixShowName, unixShowPeer           = 1 << 0, 1 << 2
	unixAttributeName, unixAttributePeer = 0, 2
)

// Unix returns the Unix sockets of the namespace that it is called in, by inode.
func Unix() (map[uint32]UnixSocket, error) {
	for again := 0; ; again++ {
		r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		body := make([]byte, sizeofUnixRequest)
		body[0] = unix.AF_UNIX
		binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // all states
		binary.NativeEndian.PutUint32(body[12:], unixShowName|unixShowPeer)
		r.AddRawData(body)
		messages, err := r.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
		if errors.Is(err, nl.ErrDumpInterrupted) && again < maxDumps {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the Unix sockets: %w", err)
		}
		sockets := make(map[uint32]UnixSocket, len(messages))
		for _, m := range messages {
			inode, s, err := parseUnix(m)
			if err != nil {
				return nil, fmt.Errorf("list the Unix sockets: %w", err)
			}
			sockets[inode] = s
		}
		return sockets, nil
	}
}

// parseUnix reads a struct unix_diag_msg and its attributes.
func parseUnix(m []byte) (inode uint32, s UnixSocket, err error) {
	if len(m) < sizeofUnixMessage {
		return 0, s, fmt.Errorf("a message of %d bytes is too short", len(m))
	}
	attributes, err := nl.ParseRouteAttr(m[sizeofUnixMessage:])
	if err != nil {
		return 0, s, err
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unixAttributeName:
			s.Name = unixName(string(a.Value))
		case a.Attr.Type == unixAttributePeer && len(a.Value) >= 4:
			s.Peer = binary.NativeEndian.Uint32(a.Value)
		}
	}
	return binary.NativeEndian.Uint32(m[4:]), s, nil
}

func unixName(raw string) string {
	if abstract, ok := strings.CutPrefix(raw, "\x00"); ok {
		return "@" + abstract
	}
	path, _, _ := strings.Cut(raw, "\x00")
	return path
}
