// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func guardProbes() map[string]operation {
	return map[string]operation{
		"kill": func(arg func(int) string) (string, error) {
			return "", unix.Kill(number(arg(0)), unix.Signal(number(arg(1))))
		},
		"seize": func(arg func(int) string) (string, error) { return "", unix.PtraceSeize(number(arg(0))) },
		"mount": func(arg func(int) string) (string, error) {
			return "", unix.Mount(arg(0), arg(1), arg(2), uintptr(flags(arg(3), mountFlags())), "")
		},
		"umount": func(arg func(int) string) (string, error) { return "", unix.Unmount(arg(0), unix.MNT_DETACH) },
		"pivot":  func(arg func(int) string) (string, error) { return "", unix.PivotRoot(arg(0), arg(1)) },
		"chroot": func(arg func(int) string) (string, error) { return "", unix.Chroot(arg(0)) },
		"unshare": func(arg func(int) string) (string, error) {
			return "", unix.Unshare(flags(arg(0), map[string]int{"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS}))
		},
		"bpf": func(func(int) string) (string, error) {
			attr := [16]uint32{2, 4, 4, 1} // an array map of one entry
			fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			if errno != 0 {
				return "", errno
			}
			return "", unix.Close(int(fd))
		},
	}
}

func mountFlags() map[string]int {
	return map[string]int{"bind": unix.MS_BIND, "move": unix.MS_MOVE, "remount": unix.MS_REMOUNT}
}
