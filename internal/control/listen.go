// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned by Listen when another process answers on the socket.
var ErrInUse = errors.New("another bailiffd answers on it; stop that one first, or give this one another socket")

// ListenOptions describe a socket.
type ListenOptions struct {
	Path    string
	Mode    os.FileMode
	Group   int // gid the socket belongs to; -1 leaves it
	PerUser int // connections that one user other than root may hold; 0 means 64
	Log     *slog.Logger
}

// Listener accepts connections whose peer is known. It is a net.Listener.
type Listener struct {
	unix *net.UnixListener
	o    ListenOptions
	made os.FileInfo // the socket's name, as it was made

	mu      sync.Mutex
	open    map[uint32]int // connections by uid
	refused int            // connections, since said
	said    time.Time      // when the last refusal was logged
}

// Listen makes the socket, with its directory if that is missing. A socket
// that is left from a process that died is replaced; one that answers is not
// (ErrInUse), nor is anything that is not a socket. Nobody can connect before
// mode and group are set.
func Listen(o ListenOptions) (*Listener, error) {
	if o.PerUser <= 0 {
		o.PerUser = 64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o755); err != nil {
		return nil, fmt.Errorf("create the socket's directory: %w", err)
	}
	if err := removeStale(o.Path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Path, err)
	}
	l, err := bind(o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Path, err)
	}
	return l, nil
}

// bind makes the socket as its owner's alone, and opens it to others when it
// belongs to the right group. (The kernel takes the mode of the new name from
// the socket's own inode.)
func bind(o ListenOptions) (*Listener, error) {
	private := func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, inner)
	}
	config := net.ListenConfig{Control: private}
	listener, err := config.Listen(context.Background(), "unix", o.Path)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, ErrInUse // it came between removeStale and here
	}
	if err != nil {
		return nil, err
	}
	l := &Listener{unix: listener.(*net.UnixListener), o: o, open: map[uint32]int{}}
	l.unix.SetUnlinkOnClose(false) // Close does it, with care
	err = os.Chown(o.Path, -1, o.Group)
	if err == nil {
		err = os.Chmod(o.Path, o.Mode.Perm())
	}
	if err == nil {
		l.made, err = os.Lstat(o.Path)
	}
	if err != nil {
		l.unix.Close()
		os.Remove(o.Path)
		return nil, err
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file of that name that is not a socket; remove it or give another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return ErrInUse // alive, with a full backlog
	}
	return err
}

// Accept returns the next connection. One whose peer cannot be told, or is over
// its share, is closed and logged, not returned.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.unix.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(c)
		if err != nil {
			l.refuse(c, err)
			continue
		}
		if !l.enter(p.UID) {
			p.pidfd.Close()
			l.refuse(c, fmt.Errorf("uid %d has %d connections already (pid %d)", p.UID, l.o.PerUser, p.PID))
			continue
		}
		return &conn{UnixConn: c, peer: p, leave: sync.OnceFunc(func() { l.leave(p.UID) })}, nil
	}
}

// refuse closes a connection. Anyone can cause it, so it is not logged each time.
func (l *Listener) refuse(c net.Conn, err error) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	if now := time.Now(); now.Sub(l.said) >= 10*time.Second {
		l.o.Log.Warn("connections were refused", "socket", l.o.Path, "count", l.refused, "latest", err)
		l.said, l.refused = now, 0
	}
}

func (l *Listener) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 && l.open[uid] >= l.o.PerUser {
		return false
	}
	l.open[uid]++
	return true
}

func (l *Listener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// Close stops listening and removes the socket, unless another took its place.
func (l *Listener) Close() error {
	if now, err := os.Lstat(l.o.Path); err == nil && os.SameFile(now, l.made) {
		os.Remove(l.o.Path)
	}
	return l.unix.Close()
}

// Addr returns the address that was bound.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.o.Path, Net: "unix"} }

// conn is a connection with its peer.
type conn struct {
	*net.UnixConn
	peer  *Peer
	leave func()
}

func (c *conn) Close() error {
	c.leave()
	return errors.Join(c.UnixConn.Close(), c.peer.pidfd.Close())
}
