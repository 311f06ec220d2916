// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os/signal"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// ioctl is how requests to a terminal are recorded.
const ioctl = "terminal privilege | capability privilege"

// terminalTechniques use terminals of others, or ask of one what acts on others.
func terminalTechniques() []technique {
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

// withOwnTerminal does something with a terminal that it makes.
func withOwnTerminal(do func(fd int) error) error {
	master, slave, err := kerneltest.NewTerminal()
	if err != nil {
		return err
	}
	defer unix.Close(master)
	return withFileAs(slave, unix.O_RDWR|unix.O_NOCTTY, do)
}

func withFileAs(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}
