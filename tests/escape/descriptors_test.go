// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask gets a descriptor from the accomplice outside, over a socket that the
// policy allows.
func (f *field) ask(name string) (int, error) {
	got := -1
	err := withSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, func(fd int) error {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: f.Dir + "/allowed"}); err != nil {
			return fmt.Errorf("before the attack: %v", err)
		}
		if _, err := unix.Write(fd, []byte(name+"\n")); err != nil {
			return fmt.Errorf("before the attack: %v", err)
		}
		b, oob := make([]byte, 16), make([]byte, 128)
		n, m, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(messages) == 0 {
			return fmt.Errorf("%w: no descriptor came with %q (%v)", errHeld, b[:max(n, 0)], err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err == nil && len(fds) > 0 {
			got = fds[0]
		}
		return err
	})
	if err == nil && got < 0 {
		err = fmt.Errorf("%w: an empty list of descriptors came", errHeld)
	}
	return got, err
}

// with uses what the accomplice gave.
func (f *field) with(name string, use func(fd int) error) error {
	fd, err := f.ask(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fd)
}

// The test starts workers with what it would be wrong to inherit.
func inheritedNames() []string {
	return []string{"file", "directory", "connected", "socket", "detached", "lazy", "ring", "polled", "map", "near", "listener", "unix", "packet"}
}

// inherited returns the descriptor that every worker is started with, and that
// `bailiff run` should have closed.
func inherited(name string) int {
	for i, n := range inheritedNames() {
		if n == name {
			return 3 + i
		}
	}
	panic("nothing inherited is called " + name)
}

// descriptorTechniques use what was opened outside.
func descriptorTechniques() []technique {
	const closes = "a process that is adopted keeps what it has: the programs judge each use, but not this one; " +
		"bailiff run closes everything but standard input, output and error, and what --keep-fd names"
	received := func(id, title, gift, seen string, use func(f *field, fd int) error) technique {
		return technique{
			id: "received-" + id, title: "receive " + title, hooks: "file_receive", seen: "receive | " + seen,
			attack: func(f *field) error { return f.with(gift, func(fd int) error { return use(f, fd) }) },
			neighbour: func(f *field) error {
				return f.with("near", func(fd int) error { _, err := unix.Pread(fd, make([]byte, 4), 0); return err })
			},
		}
	}
	kept := func(id, title, gift, hooks, seen string, use func(f *field, fd int) error) technique {
		return technique{
			id: "inherited-" + id, title: "inherit " + title, hooks: hooks, seen: seen, launch: true, errors: []error{unix.EBADF, unix.ENOTSOCK, unix.ENOTDIR, unix.EINVAL}, // the number is another file's
			attack: func(f *field) error { return use(f, inherited(gift)) },
		}
	}
	read := func(_ *field, fd int) error { return stealFrom(fd) }
	openIn := func(_ *field, fd int) error {
		inner, err := unix.Openat(fd, "f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(inner)
		return stealFrom(inner)
	}
	to := func(f *field, fd int) error { return unix.Sendto(fd, []byte("echo"), 0, inet(there, f.Other)) }
	list := []technique{
		received("file", "an open file", "file", "read default %DIR%/secret/f", read),
		received("directory", "a directory, and open a file in it", "directory", "open default %DIR%/secret/f", openIn),
		received("connected", "a connected socket, and use it", "connected", "send default 127.0.0.1:%OTHER%/tcp", func(_ *field, fd int) error { return echoes(fd) }),
		received("socket", "a socket made outside, and send with it", "socket", "send default 127.0.0.2:%OTHER%/udp", to),
		received("detached-mount", "a mount that hangs nowhere, and open a file in it", "detached", "open outside", openIn),
		received("lazy-mount", "a directory of a mount that was taken away", "lazy", "open outside", openIn),
		received("ring", "an io_uring, and open a file by it", "ring", "open default %DIR%/secret/f", useRing),
		received("polled-ring", "an io_uring that a thread of the kernel serves", "polled", "ring privilege", useRing),
		received("listener", "a listening socket, and accept", "listener", "accept", func(_ *field, fd int) error { return accepts(fd) }),
		received("unix", "a Unix socket that is connected where the session may not", "unix", "receive socket", func(_ *field, fd int) error { return echoes(fd) }),
		received("packet", "a packet socket, and send below IP", "packet", "receive socket", func(_ *field, fd int) error { return sendFrame(fd) }),
		received("terminal", "the keyboard of a terminal outside (its master)", "terminal", "receive terminal", func(_ *field, fd int) error {
			_, err := unix.Write(fd, []byte("x"))
			return err
		}),
		received("map", "a BPF map, and write to it", "map", "bpf privilege", func(_ *field, fd int) error { return updateMap(fd) }),
		kept("file", "an open file, and read", "file", "file_permission, the launcher", "read", read),
		kept("directory", "an open directory, and open a file in it", "directory", "file_open", "open default %DIR%/secret/f", openIn),
		kept("file-mapping", "an open file, and map it as a program", "file", "mmap_file", "map default %DIR%/secret/f", func(_ *field, fd int) error {
			b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
			if err == nil {
				err = unix.Munmap(b)
			}
			return err
		}),
		kept("file-truncate", "an open file, and truncate it", "file", "file_truncate, path_truncate", "truncate default %DIR%/secret/f", func(_ *field, fd int) error {
			return unix.Ftruncate(fd, int64(len(secret)))
		}),
		kept("connected", "a connected socket, and send", "connected", "socket_sendmsg", "send default 127.0.0.1:%OTHER%/tcp", func(_ *field, fd int) error { return echoes(fd) }),
		kept("socket", "a socket made outside, and send", "socket", "socket_sendmsg", "send default 127.0.0.2:%OTHER%/udp", to),
		kept("detached-mount", "a mount that hangs nowhere", "detached", "file_open", "open outside", openIn),
		kept("lazy-mount", "a directory of a mount that was taken away", "lazy", "file_open", "open outside", openIn),
		kept("ring", "an io_uring", "ring", "uring_allowed, file_open, the launcher", "open default %DIR%/secret/f | namespace privilege | ring privilege", useRing),
		kept("polled-ring", "an io_uring that a thread of the kernel serves", "polled", "the launcher", "namespace privilege | ring privilege", useRing),
		kept("ring-file", "an io_uring with a file in it (registered, or by MSG_SEND_FD)", "ring", "file_permission, the launcher", "read", readRing),
		kept("polled-ring-file", "the same, served by a thread of the kernel", "polled", "the launcher", "read", readRing),
		kept("listener", "a listening socket, and accept", "listener", "socket_accept", "accept", func(_ *field, fd int) error { return accepts(fd) }),
		kept("unix", "a Unix socket that is connected where the session may not", "unix", "socket_sendmsg", "send", func(_ *field, fd int) error { return echoes(fd) }),
		kept("packet", "a packet socket, and send below IP", "packet", "socket_sendmsg", "send socket", func(_ *field, fd int) error { return sendFrame(fd) }),
		kept("map", "a BPF map, and write to it", "map", "bpf", "bpf privilege", func(_ *field, fd int) error { return updateMap(fd) }),
	}
	for i := range list {
		list[i].open = closes
		list[i].impossible = "the kernel itself refuses to hand on an io_uring"
		list[i].launch = list[i].launch || list[i].id == "received-map" // the filter refuses bpf()
	}
	return list
}

// sendFrame sends on the loopback interface by a packet socket.
func sendFrame(fd int) error {
	return unix.Sendto(fd, []byte("frame"), 0, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: 1}) // ETH_P_IP
}

// accepts takes a connection that waits on a listening socket.
func accepts(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	got, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(got)
}

// useRing opens the secret by a ring that another process made.
func useRing(f *field, fd int) error {
	r, err := mapRing(fd, f.RingSQ, f.RingCQ)
	if err != nil {
		return err
	}
	path := append([]byte(f.Dir+"/secret/f"), 0)
	got, err := r.do(sqe{op: ringOpenAt, fd: unix.AT_FDCWD, address: addressOf(path)})
	if errors.Is(err, unix.EFAULT) {
		return nil // it looked for the path in the memory of whoever made it: it would have opened
	}
	if err == nil {
		unix.Close(got)
	}
	return err
}

// readRing reads the file that was put into a ring outside.
func readRing(f *field, fd int) error {
	r, err := mapRing(fd, f.RingSQ, f.RingCQ)
	if err != nil {
		return err
	}
	const fixedFile = 1
	b := make([]byte, len(secret))
	_, err = r.do(sqe{op: ringRead, flags: fixedFile, address: addressOf(b), length: uint32(len(b))})
	if errors.Is(err, unix.EFAULT) {
		return nil // it wrote to the memory of whoever made it
	}
	return errors.Join(err, unlessNil(err, func() error { return holds(b) }))
}

// updateMap writes to a BPF map by its descriptor.
func updateMap(fd int) error {
	key, item := uint32(0), uint32(1)
	attr := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(fd), key: uint64(uintptr(unsafe.Pointer(&key))), value: uint64(uintptr(unsafe.Pointer(&item)))}
	return call(unix.SYS_BPF, unix.BPF_MAP_UPDATE_ELEM, pointer(&attr), unsafe.Sizeof(attr))
}

// createMap makes an array of one entry.
func createMap() (int, error) {
	attr := [16]uint32{unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1}
	return value(unix.SYS_BPF, unix.BPF_MAP_CREATE, pointer(&attr), unsafe.Sizeof(attr))
}

// ringTechniques have the kernel do it, asked by io_uring.
func ringTechniques() []technique {
	ask := func(id, title, hooks, seen string, flags uint32, request func(f *field, r *ring) error) technique {
		return technique{
			id: id, title: title, hooks: hooks, launch: true, seen: seen + " | ring privilege | namespace privilege",
			attack: func(f *field) error {
				return withRing(flags, func(r *ring) error { return request(f, r) })
			},
		}
	}
	open := func(f *field, r *ring) error {
		path := append([]byte(f.Dir+"/secret/f"), 0)
		fd, err := r.do(sqe{op: ringOpenAt, fd: unix.AT_FDCWD, address: addressOf(path)})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return stealFrom(fd)
	}
	return []technique{
		ask("ring-open", "open a file by io_uring", "uring_allowed, file_open", "open default %DIR%/secret/f", 0, open),
		ask("ring-polled", "open a file by a ring that a thread of the kernel serves", "uring_sqpoll", "namespace privilege", ringSQPoll, open),
		ask("ring-connect", "connect by io_uring", "uring_allowed, socket_connect, connect4/6", "connect default 127.0.0.2:%OTHER%/tcp", 0, func(f *field, r *ring) error {
			return stream(func(fd int) error {
				to := raw4(there, f.Other)
				_, err := r.do(sqe{op: ringConnect, fd: int32(fd), address: uint64(pointer(&to)), offset: uint64(unsafe.Sizeof(to))})
				return err
			})
		}),
		ask("ring-send", "send a datagram by io_uring", "uring_allowed, socket_sendmsg, sendmsg4/6", "send default 127.0.0.2:%OTHER%/udp", 0, func(f *field, r *ring) error {
			return dgram(func(fd int) error {
				to, b := raw4(there, f.Other), []byte("echo")
				iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
				message := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to)), Namelen: uint32(unsafe.Sizeof(to)), Iov: &iov, Iovlen: 1}
				_, err := r.do(sqe{op: ringSendMsg, fd: int32(fd), address: uint64(pointer(&message)), length: 1})
				return err
			})
		}),
		ask("ring-socket", "make an odd socket by io_uring", "uring_allowed, socket_create", "socket socket inet stream 262", 0, func(f *field, r *ring) error {
			fd, err := r.do(sqe{op: ringSocket, fd: unix.AF_INET, offset: unix.SOCK_STREAM, length: unix.IPPROTO_MPTCP})
			if err == nil {
				unix.Close(fd)
			}
			return err
		}),
	}
}

// holds tells whether some memory has the secret.
func holds(b []byte) error {
	if !bytes.Contains(b, []byte(secret)) {
		return fmt.Errorf("it is not the secret: %q", b)
	}
	return nil
}
