// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
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
	terminal := func(id, title string, launch bool, seen string, do func(fd int) error) technique {
		return technique{
			id: id, title: title, hooks: "file_ioctl, capable", loose: true, root: true, launch: launch, basic: launch, seen: seen,
			attack: func(f *field) error { return withTerminal(f, do) },
			neighbour: func(f *field) error {
				return withTerminal(f, func(fd int) error { _, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); return err })
			},
		}
	}
	const ioctl = "terminal privilege | capability privilege"
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
		terminal("terminal-input", "type into a terminal outside (TIOCSTI)", true, ioctl, func(fd int) error {
			b := []byte("x")
			return call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, pointer(&b[0]))
		}),
		{
			id: "terminal-paste", title: "paste into a console (TIOCLINUX)", hooks: "file_open, file_ioctl, capable", loose: true, root: true, launch: true, seen: ioctl + " | open device /dev/tty1 | open builtin /dev/tty1",
			impossible: "the guest has no virtual console", attack: func(f *field) error {
				fd, err := unix.Open("/dev/tty1", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				paste := byte(3)
				return call(unix.SYS_IOCTL, uintptr(fd), 0x541c, pointer(&paste))
			},
		},
		terminal("terminal-discipline", "another line discipline for a terminal (TIOCSETD)", false, ioctl, func(fd int) error {
			return unix.IoctlSetPointerInt(fd, unix.TIOCSETD, 0)
		}),
		terminal("terminal-console", "take the console's output (TIOCCONS)", false, ioctl, func(fd int) error {
			err := unless(call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCCONS, 0), unix.EBUSY)
			if console, none := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); none == nil {
				_ = call(unix.SYS_IOCTL, uintptr(console), unix.TIOCCONS, 0) // gives it back
				unix.Close(console)
			}
			return err
		}),
		terminal("terminal-take", "take a terminal from a session outside (TIOCSCTTY)", false, ioctl, func(fd int) error {
			if _, err := unix.Setsid(); err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			return call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSCTTY, 1)
		}).alone().because("the terminal is one that the session may open, and belongs to no session of the kernel's"),
	}
}

// alone says that it needs a process of its own.
func (t technique) alone() technique {
	t.process = true
	return t
}

func withTerminal(f *field, do func(fd int) error) error {
	fd, err := unix.Open(f.TTY, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	return do(fd)
}
