// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// ioctl is how requests to a terminal are recorded.
const ioctl = "terminal privilege | capability privilege"

// deviceTechniques reach devices.
func deviceTechniques() []technique {
	near := func(f *field) error { return errors.Join(poke("/dev/null"), peek("/dev/urandom")) }
	node := func(id, title, path string, seen string) technique {
		return technique{
			id: "device-" + id, title: title, hooks: "file_open", loose: true, root: true, seen: "open device " + path + " | open builtin " + path + seen,
			attack: func(f *field) error { return peek(f.expand(path)) }, neighbour: near,
		}
	}
	terminal := func(id, title string, do func(fd int) error) technique {
		return technique{
			id: id, title: title, hooks: "file_ioctl, capable", loose: true, root: true, launch: true, basic: true, seen: ioctl,
			attack: func(*field) error { return withOwnTerminal(do) },
			neighbour: func(*field) error {
				return withOwnTerminal(func(fd int) error { _, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); return err })
			},
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
		terminal("terminal-input", "type into a terminal (TIOCSTI)", func(fd int) error {
			b := []byte("x")
			return call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, pointer(&b[0]))
		}),
		{
			id: "terminal-paste", title: "paste into a console (TIOCLINUX)", hooks: "file_open, file_ioctl, capable", loose: true, root: true, launch: true, seen: ioctl + " | open terminal /dev/tty1",
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
		terminal("terminal-discipline", "another line discipline for a terminal (TIOCSETD)", func(fd int) error {
			return unix.IoctlSetPointerInt(fd, unix.TIOCSETD, 0)
		}),
		terminal("terminal-console", "take the console's output (TIOCCONS)", func(fd int) error {
			err := unless(call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCCONS, 0), unix.EBUSY)
			if console, none := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); none == nil {
				_ = call(unix.SYS_IOCTL, uintptr(console), unix.TIOCCONS, 0) // gives it back
				unix.Close(console)
			}
			return err
		}),
		outside("terminal-read", "read from a terminal outside", func(fd int) error {
			if err := unix.SetNonblock(fd, true); err != nil {
				return err
			}
			_, err := unix.Read(fd, make([]byte, 1))
			return unless(err, unix.EAGAIN) // nobody is typing
		}),
		outside("terminal-write", "write to a terminal outside", func(fd int) error {
			_, err := unix.Write(fd, []byte("\r"))
			return err
		}),
		outside("terminal-take", "take a terminal from a session outside (TIOCSCTTY)", func(fd int) error {
			signal.Ignore(unix.SIGHUP) // which comes when its terminal goes
			if _, err := unix.Setsid(); err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			return call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSCTTY, 1)
		}).alone(),
	}
}

// outside does something with a terminal outside, which root and the ordinary user
// may open.
func outside(id, title string, do func(fd int) error) technique {
	return technique{
		id: id, title: title, hooks: "file_open", loose: true, seen: "open terminal %TTY%",
		attack: func(f *field) error {
			return withFileAs(f.TTY, unix.O_RDWR|unix.O_NOCTTY, do)
		},
		neighbour: func(*field) error { return withOwnTerminal(do) },
	}
}

// alone says that it needs a process of its own.
func (t technique) alone() technique {
	t.process = true
	return t
}

// withOwnTerminal does something with a terminal that it makes.
func withOwnTerminal(do func(fd int) error) error {
	return withFileAs("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, func(master int) error {
		path, err := slaveOf(master)
		if err != nil {
			return fmt.Errorf("make a terminal: %v", err)
		}
		return withFileAs(path, unix.O_RDWR|unix.O_NOCTTY, do)
	})
}

// slaveOf unlocks a terminal and returns its path.
func slaveOf(master int) (string, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return "", err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	return fmt.Sprint("/dev/pts/", n), err
}

func withFileAs(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}
