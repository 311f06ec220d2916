// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind says what is tried.
type Kind uint8

// The kinds of acts. Those of the network are by UDP to 127.0.0.1.
const (
	Open     Kind = iota + 1 // read a file
	Connect                  // connect a socket
	Send                     // connect one, and send a byte
	Hold                     // connect one, and keep it
	SendHeld                 // send a byte by the one that is kept
)

// Act is one thing to try.
type Act struct {
	Kind Kind
	Path string // to open
	Port uint16 // to connect to
}

// String says what is tried, in words that follow "to".
func (a Act) String() string {
	switch a.Kind {
	case Open:
		return "open " + a.Path
	case Connect:
		return fmt.Sprintf("connect to 127.0.0.1:%d/udp", a.Port)
	case Send:
		return fmt.Sprintf("send to 127.0.0.1:%d/udp", a.Port)
	case Hold:
		return fmt.Sprintf("connect to 127.0.0.1:%d/udp, to send later", a.Port)
	case SendHeld:
		return fmt.Sprintf("send to 127.0.0.1:%d/udp by a socket that was connected before", a.Port)
	}
	return fmt.Sprintf("do what number %d means", a.Kind)
}

// hand does acts on this thread, and undoes them.
type hand struct {
	held int // a socket; 0: none
}

func (h *hand) try(a Act) error {
	switch a.Kind {
	case Open:
		fd, err := unix.Open(a.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case Connect, Send, Hold:
		return h.onSocket(a)
	case SendHeld:
		defer h.release()
		return unix.Sendto(h.held, []byte{0}, 0, nil)
	}
	return unix.ENOSYS
}

func (h *hand) onSocket(a Act) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(a.Port), Addr: [4]byte{127, 0, 0, 1}})
	if err == nil && a.Kind == Send {
		err = unix.Sendto(fd, []byte{0}, 0, nil)
	}
	if err == nil && a.Kind == Hold {
		h.release()
		h.held = fd
		return nil
	}
	return errors.Join(err, unix.Close(fd))
}

func (h *hand) release() {
	if h.held != 0 {
		unix.Close(h.held)
	}
	h.held = 0
}

// errnoOf returns the kernel's number of an error; 0 for none.
func errnoOf(err error) uint32 {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return uint32(errno)
	}
	if err != nil {
		return uint32(unix.EIO)
	}
	return 0
}
