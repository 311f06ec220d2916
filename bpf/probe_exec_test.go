// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func execProbes() map[string]operation {
	return map[string]operation{
		"run": spawn,
		// The prober becomes another image of itself, which answers.
		"execve": func(arg func(int) string) (string, error) {
			return "", unix.Exec(arg(0), []string{"prober"}, os.Environ())
		},
		"execveat": func(arg func(int) string) (string, error) { return "", execveat(number(arg(0))) },
		"memfd": func(arg func(int) string) (string, error) {
			fd, err := unix.MemfdCreate("test", 0)
			if err != nil {
				return "", err
			}
			image, err := os.ReadFile(arg(0))
			if err != nil {
				return "", err
			}
			for len(image) > 0 && err == nil {
				n := 0
				n, err = unix.Write(fd, image)
				image = image[max(n, 0):]
			}
			return fmt.Sprint(fd), err
		},
		"mmap": func(arg func(int) string) (string, error) {
			b, err := unix.Mmap(number(arg(0)), 0, 4096, flags(arg(1), protections()), unix.MAP_PRIVATE)
			if err != nil {
				return "", err
			}
			return "", unix.Munmap(b)
		},
		"mprotect": func(arg func(int) string) (string, error) {
			b, err := unix.Mmap(number(arg(0)), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
			if err != nil {
				return "", err
			}
			defer unix.Munmap(b)
			return "", unix.Mprotect(b, flags(arg(1), protections()))
		},
		"pipe": func(func(int) string) (string, error) {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				return "", err
			}
			return fmt.Sprint(p[0], " ", p[1]), nil
		},
		"pid": func(func(int) string) (string, error) { return fmt.Sprint(os.Getpid()), nil },
	}
}

func protections() map[string]int {
	return map[string]int{"r": unix.PROT_READ, "w": unix.PROT_WRITE, "x": unix.PROT_EXEC}
}

// spawn runs a command to its end and returns its exit status and output.
func spawn(arg func(int) string) (string, error) {
	var argv []string
	for i := 0; arg(i) != ""; i++ {
		argv = append(argv, arg(i))
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return "", err
	}
	defer unix.Close(p[0])
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: []string{"PATH=/usr/bin:/bin"}, Files: []uintptr{0, uintptr(p[1]), uintptr(p[1])},
	})
	unix.Close(p[1])
	if err != nil {
		return "", err
	}
	var output strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := unix.Read(p[0], b)
		if n <= 0 || err != nil {
			break
		}
		output.Write(b[:n])
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %s", status.ExitStatus(), output.String()), nil
}

func execveat(fd int) error {
	argv, err := syscall.SlicePtrFromStrings([]string{"prober"})
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	empty := []byte{0}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
