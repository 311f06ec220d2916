// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call makes a raw system call.
func call(number uintptr, args ...uintptr) error {
	_, err := value(number, args...)
	return err
}

// value makes a raw system call and returns what it returned.
func value(number uintptr, args ...uintptr) (int, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// pointer is for system calls alone: what it points at must stay alive.
func pointer[T any](v *T) uintptr { return uintptr(unsafe.Pointer(v)) }

func text(s string) uintptr {
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	return pointer(p)
}

// steal reads a file that holds the secret, or fails.
func steal(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return stealFrom(fd)
}

// stealFrom reads the secret from a descriptor.
func stealFrom(fd int) error {
	b := make([]byte, 4096)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return err
	}
	if !bytes.Contains(b[:n], []byte(secret)) {
		return fmt.Errorf("it is not the secret: %q", b[:min(n, 40)])
	}
	return nil
}

// peek reads a file that holds no secret.
func peek(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// poke opens a file for writing, and changes nothing.
func poke(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// scrawl writes to a file.
func scrawl(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// fresh makes a new file with the words of an own note.
func fresh(path string) error { return os.WriteFile(path, []byte(secret), 0o666) }

// unless treats one error as success.
func unless(err error, fine ...error) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}
