// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
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
		"bpf": func(func(int) string) (string, error) {
			attr := [16]uint32{2, 4, 4, 1} // an array map of one entry
			fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			if errno != 0 {
				return "", errno
			}
			return "", unix.Close(int(fd))
		},
		"traceme": func(func(int) string) (string, error) {
			_, _, errno := unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)
			return "", failed(errno)
		},
		"vmread": func(arg func(int) string) (string, error) {
			b := make([]byte, 8)
			local := []unix.Iovec{{Base: &b[0], Len: 8}}
			remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: 8}}
			_, err := unix.ProcessVMReadv(number(arg(0)), local, remote, 0)
			if err == unix.EFAULT { // allowed; that address is of this process
				err = nil
			}
			return "", err
		},
		"getfd": func(arg func(int) string) (string, error) {
			pidfd, err := unix.PidfdOpen(number(arg(0)), 0)
			if err != nil {
				return "", err
			}
			defer unix.Close(pidfd)
			_, err = unix.PidfdGetfd(pidfd, 0, 0)
			return "", err
		},
		"terminal": func(func(int) string) (string, error) {
			master, slave, path, err := newTerminal()
			return fmt.Sprint(master, " ", slave, " ", path), err
		},
		"setsid": func(func(int) string) (string, error) {
			_, err := unix.Setsid()
			return "", err
		},
		"sqpoll": func(func(int) string) (string, error) {
			params := [30]uint32{2: 2} // IORING_SETUP_SQPOLL
			_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
			return "", failed(errno)
		},
		// A child that waits for ever.
		"child": func(func(int) string) (string, error) {
			var p [2]int
			if err := unix.Pipe(p[:]); err != nil {
				return "", err
			}
			pid, err := syscall.ForkExec(executable(), []string{"prober"}, &syscall.ProcAttr{
				Env: os.Environ(), Files: []uintptr{uintptr(p[0]), uintptr(p[1]), 2},
			})
			return fmt.Sprint(pid), err
		},
		"threadopen": func(arg func(int) string) (string, error) {
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // and never unlocked: the thread is new, and ends
				_, err := open(false)(arg)
				done <- err
			}()
			return "", <-done
		},
	}
}

func failed(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func mountFlags() map[string]int {
	return map[string]int{"bind": unix.MS_BIND, "move": unix.MS_MOVE, "remount": unix.MS_REMOUNT}
}
