// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// performProbes are the accesses of the differential test, many in one call: each
// argument is an operation and its arguments with a NUL between. The answer is
// their error numbers with a space between.
func performProbes() map[string]operation {
	return map[string]operation{
		"perform": func(arg func(int) string) (string, error) {
			unix.Umask(0)
			var errnos []string
			for i := 0; arg(i) != ""; i++ {
				errno, err := perform(strings.Split(arg(i), "\x00"))
				if err != nil {
					return "", err
				}
				errnos = append(errnos, fmt.Sprint(int(errno)))
			}
			return strings.Join(errnos, " "), nil
		},
		"anonymous": anonymous,
		"renameflags": func(arg func(int) string) (string, error) {
			return "", unix.Renameat2(unix.AT_FDCWD, arg(0), unix.AT_FDCWD, arg(1), uint(number(arg(2))))
		},
		"futimes": func(arg func(int) string) (string, error) { return "", futimes(number(arg(0))) },
		"fsetxattr": func(arg func(int) string) (string, error) {
			return "", unix.Fsetxattr(number(arg(0)), "security.bailiff", []byte("1"), 0)
		},
		"fremovexattr": func(arg func(int) string) (string, error) {
			return "", unix.Fremovexattr(number(arg(0)), "security.bailiff")
		},
	}
}

func futimes(fd int) error {
	return unix.Futimes(fd, []unix.Timeval{{Sec: 1}, {Sec: 1}})
}

// anonymous makes a file that has no path and changes it.
func anonymous(arg func(int) string) (string, error) {
	var fds [2]int
	var err error
	switch arg(0) {
	case "memory":
		fds[0], err = unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		fds[1] = -1
	case "pipe":
		err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	default:
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	switch arg(1) {
	case "ftruncate":
		return "", unix.Ftruncate(fds[0], 4096)
	case "fchmod":
		return "", unix.Fchmod(fds[0], 0o600)
	case "fchown":
		return "", unix.Fchown(fds[0], 0, 0)
	}
	return "", futimes(fds[0])
}

// perform does one operation. An error is one that is not the kernel's answer.
func perform(call []string) (errno syscall.Errno, broken error) {
	var err error
	switch path := call[1]; call[0] {
	case "open":
		err = performOpen(path, flags(call[2], openFlags()), nil)
	case "exec": // of what is no program: the kernel says so after it was allowed to look
		if err = unix.Exec(path, []string{path}, nil); errors.Is(err, unix.ENOEXEC) {
			err = nil
		}
	case "map":
		err = performOpen(path, unix.O_RDONLY, func(fd int) error { return mapFile(fd, unix.PROT_EXEC) })
	case "protect":
		err = performOpen(path, unix.O_RDONLY, func(fd int) error { return mapFile(fd, unix.PROT_READ) })
	case "connect":
		err = performConnect(path)
	case "mkdir":
		err = unix.Mkdir(path, 0o755)
	case "mknod":
		kinds := map[string]uint32{"fifo": unix.S_IFIFO, "char": unix.S_IFCHR, "file": unix.S_IFREG}
		err = unix.Mknod(path, kinds[call[2]]|0o755, int(unix.Mkdev(1, 3)))
	case "chmod":
		err = unix.Chmod(path, 0o755)
	default:
		op := fileProbes()[call[0]]
		if op == nil {
			op = inodeProbes()[call[0]]
		}
		_, err = op(func(i int) string { return call[i+1] })
	}
	if err != nil && !errors.As(err, &errno) {
		return 0, fmt.Errorf("%q: %w", call, err)
	}
	return errno, nil
}

func performOpen(path string, mode int, use func(fd int) error) error {
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o755)
	if err != nil {
		return err
	}
	if use != nil {
		err = use(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// mapFile maps a file with a protection, and makes the mapping executable if it is not.
func mapFile(fd, protection int) error {
	b, err := unix.Mmap(fd, 0, 4096, protection, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if protection&unix.PROT_EXEC == 0 {
		err = unix.Mprotect(b, protection|unix.PROT_EXEC)
	}
	return errors.Join(err, unix.Munmap(b))
}

// performConnect connects to a Unix socket, however long its path is.
func performConnect(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !strings.HasPrefix(name, "@") {
		dir, err := unix.Open(filepath.Dir(name), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		name = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(name))
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}
