// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// unixTechniques reach Unix sockets that the policy does not name.
func unixTechniques() []technique {
	talk := func(kind int, path string) error {
		return withSocket(unix.AF_UNIX, kind, 0, func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	}
	near := func(f *field) error { return talk(unix.SOCK_STREAM, f.Dir+"/allowed") }
	nearby := func(f *field) error { return talk(unix.SOCK_DGRAM, "@allowed-"+f.Work+"-dgram") }
	reach := func(id, title, seen string, attack, neighbour func(f *field) error) technique {
		return technique{id: id, title: title, hooks: "unix_stream_connect, unix_may_send", seen: "unix-connect " + seen, attack: attack, neighbour: neighbour}
	}
	link := func(f *field, target string) string {
		path := f.own("socket-link")
		os.Remove(path)
		_ = os.Symlink(target, path) // connecting tells
		return path
	}
	throughFD := func(directory, name string) error {
		fd, err := unix.Open(directory, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return talk(unix.SOCK_STREAM, fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
	}
	deputy := func(id, title, path string) technique {
		x := reach(id, title, "builtin "+path, func(f *field) error { return talk(unix.SOCK_STREAM, path) }, near)
		x.loose = true
		return x
	}
	return []technique{
		reach("unix", "connect to a Unix socket", "default %DIR%/forbidden", func(f *field) error { return talk(unix.SOCK_STREAM, f.Dir+"/forbidden") }, near),
		reach("unix-symlink", "connect through a symbolic link", "default %DIR%/forbidden",
			func(f *field) error { return talk(unix.SOCK_STREAM, link(f, f.Dir+"/forbidden")) },
			func(f *field) error { return talk(unix.SOCK_STREAM, link(f, f.Dir+"/allowed")) }),
		reach("unix-descriptor-path", "connect through /proc/self/fd", "default %DIR%/forbidden",
			func(f *field) error { return throughFD(f.Dir, "forbidden") }, func(f *field) error { return throughFD(f.Dir, "allowed") }),
		reach("unix-abstract", "connect to an abstract name", "default @forbidden-%WORK%",
			func(f *field) error { return talk(unix.SOCK_STREAM, "@forbidden-"+f.Work) },
			func(f *field) error { return talk(unix.SOCK_STREAM, "@allowed-"+f.Work) }),
		reach("unix-datagram", "send a datagram to a Unix socket", "default %DIR%/forbidden-dgram", func(f *field) error {
			return withSocket(unix.AF_UNIX, unix.SOCK_DGRAM, 0, func(fd int) error {
				return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: f.Dir + "/forbidden-dgram"})
			})
		}, nearby),
		reach("unix-datagram-connected", "connect a datagram socket", "default %DIR%/forbidden-dgram",
			func(f *field) error { return talk(unix.SOCK_DGRAM, f.Dir+"/forbidden-dgram") }, nearby),
		reach("unix-pair", "send elsewhere from one end of a pair", "default %DIR%/forbidden-dgram", func(f *field) error {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			return unix.Sendto(fds[0], []byte("x"), 0, &unix.SockaddrUnix{Name: f.Dir + "/forbidden-dgram"})
		}, nearby),
		deputy("unix-bus", "reach the system bus", "/run/dbus/system_bus_socket"),
		deputy("unix-systemd", "reach systemd's own socket", "/run/systemd/private"),
		{
			id: "unix-bind", title: "make a socket where nothing may be made", hooks: "path_mknod", basic: true,
			attack: func(f *field) error {
				return bindUnix(f.Dir + "/shared/socket-" + f.World)
			},
			neighbour: func(f *field) error { return bindUnix(f.own("socket")) }, seen: "mknod default %DIR%/shared/socket-",
		},
	}
}

func bindUnix(path string) error {
	os.Remove(path)
	return withSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, func(fd int) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: path}) })
}
