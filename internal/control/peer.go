// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Peer is who opened a connection, as the kernel noted it at that moment.
type Peer struct {
	PID    int // in this process's pid namespace, never 0
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary

	pidfd *os.File // closed with the connection
}

// InGroup says whether the peer's primary or a supplementary group is gid.
func (p *Peer) InGroup(gid uint32) bool {
	return p.GID == gid || slices.Contains(p.Groups, gid)
}

// PIDFD returns a descriptor of the very process that opened the connection,
// whatever became of its number since. The caller closes it. It is an error
// once the connection is closed.
func (p *Peer) PIDFD() (*os.File, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer's pidfd: %w", err)
	}
	fd, dup := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, fmt.Errorf("peer's pidfd: %w", err)
	}
	if dup != nil {
		return nil, fmt.Errorf("duplicate the peer's pidfd: %w", dup)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

type peerKey struct{}

// PeerFrom returns the peer of the connection that a request came by. ok is
// false only where no Server of this package put it there.
func PeerFrom(ctx context.Context) (p *Peer, ok bool) {
	p, ok = ctx.Value(peerKey{}).(*Peer)
	return p, ok
}

// WithPeer returns a context with a peer, for the tests of handlers.
func WithPeer(ctx context.Context, p *Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerOf asks the kernel who is at the other end. The Peer's pidfd is open.
func peerOf(c *net.UnixConn) (*Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	p, inner := (*Peer)(nil), error(nil)
	if err := raw.Control(func(fd uintptr) { p, inner = peerOfSocket(int(fd)) }); err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	if inner != nil {
		return nil, fmt.Errorf("identify peer: %w", inner)
	}
	return p, nil
}

func peerOfSocket(fd int) (*Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	if cred.Pid <= 0 {
		return nil, fmt.Errorf("the peer is in a pid namespace that is not below this one")
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	pidfd, err := peerPIDFD(fd, cred)
	if err != nil {
		return nil, err
	}
	return &Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Groups: groups, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}
