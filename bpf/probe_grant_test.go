// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

func grantProbes() map[string]operation {
	return map[string]operation{
		"mapshared": func(arg func(int) string) (string, error) {
			_, err := unix.Mmap(number(arg(0)), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			return "", err
		},
		// Computes for so many milliseconds; the clock is read without asking the kernel.
		"spin": func(arg func(int) string) (string, error) {
			for end := time.Now().Add(time.Duration(number(arg(0))) * time.Millisecond); time.Now().Before(end); {
			}
			return "", nil
		},
		"sleep": func(arg func(int) string) (string, error) {
			for range number(arg(0)) / 10 {
				time.Sleep(10 * time.Millisecond)
			}
			return "", nil
		},
		// Opens for reading on another thread.
		"elsewhere": func(arg func(int) string) (string, error) {
			done := make(chan error)
			go func() {
				fd, err := unix.Open(arg(0), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					err = unix.Close(fd)
				}
				done <- err
			}()
			return "", <-done
		},
		"shmget": func(func(int) string) (string, error) {
			id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666)
			return fmt.Sprint(id), err
		},
		"shmat": func(arg func(int) string) (string, error) {
			b, err := unix.SysvShmAttach(number(arg(0)), 0, unix.SHM_RDONLY)
			if err != nil {
				return "", err
			}
			return "", unix.SysvShmDetach(b)
		},
		"shmrm": func(arg func(int) string) (string, error) {
			_, err := unix.SysvShmCtl(number(arg(0)), unix.IPC_RMID, nil)
			return "", err
		},
		"recvnow": func(arg func(int) string) (string, error) {
			b := make([]byte, 100)
			n, _, err := unix.Recvfrom(number(arg(0)), b, unix.MSG_DONTWAIT)
			return string(b[:max(n, 0)]), err
		},
	}
}
