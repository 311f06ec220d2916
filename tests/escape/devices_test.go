// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// deviceTechniques reach devices.
func deviceTechniques() []technique {
	near := func(f *field) error { return errors.Join(poke("/dev/null"), peek("/dev/urandom")) }
	node := func(id, title, path string, seen string) technique {
		return technique{
			id: "device-" + id, title: title, hooks: "file_open", loose: true, root: true, seen: "open device " + path + " | open builtin " + path + seen,
			attack: func(f *field) error { return peek(f.expand(path)) }, neighbour: near,
		}
	}
	return []technique{
		{
			id: "mknod-block", title: "make a block device", hooks: "path_mknod", loose: true, root: true, seen: "mknod device %WORK%",
			attack:    func(f *field) error { return unix.Mknod(f.own("disk"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))) },
			neighbour: func(f *field) error { os.Remove(f.own("fifo")); return unix.Mkfifo(f.own("fifo"), 0o666) },
		},
		{
			id: "mknod-character", title: "make a character device", hooks: "path_mknod", loose: true, root: true, seen: "mknod device %WORK%",
			attack: func(f *field) error { return unix.Mknod(f.own("memory"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))) },
		},
		node("planted-block", "open a block device that somebody planted", "%WORK%/planted-disk", ""),
		node("planted-character", "open a character device that somebody planted", "%WORK%/planted-memory", ""),
		node("loop", "open a loop device", "/dev/loop0", ""),
		node("loop-control", "make loop devices", "/dev/loop-control", ""),
		node("memory", "open the machine's memory (/dev/mem)", "/dev/mem", ""),
		node("kernel-messages", "open the kernel's log (/dev/kmsg)", "/dev/kmsg", ""),
		node("ports", "open the machine's ports (/dev/port)", "/dev/port", ""),
		node("tunnel", "make network interfaces (/dev/net/tun)", "/dev/net/tun", ""),
		node("fuse", "serve a file system (/dev/fuse)", "/dev/fuse", ""),
		node("console", "open the console", "/dev/console", ""),
		node("screen", "read what is on a console's screen (/dev/vcs)", "/dev/vcs", " | open terminal /dev/vcs"),
	}
}

// alone says that it needs a process of its own.
func (t technique) alone() technique {
	t.process = true
	return t
}
