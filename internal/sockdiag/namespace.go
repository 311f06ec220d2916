// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces opens the network namespaces that processes are in, each once. A
// process that has gone is left out.
func Namespaces(pids []int) (list []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range list {
				f.Close()
			}
			list = nil
		}
	}()
	var seen []os.FileInfo
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if gone(err) {
			continue
		}
		if err != nil {
			return list, fmt.Errorf("open a network namespace: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return list, fmt.Errorf("look at a network namespace: %w", err)
		}
		if slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			f.Close()
			continue
		}
		seen, list = append(seen, info), append(list, f)
	}
	return list, nil
}

// gone: the process has been waited for, or is a zombie, which is in no namespace.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// In calls f in a network namespace, on a thread of its own: no other goroutine
// runs there. Goroutines that f starts are elsewhere.
func In(namespace *os.File, f func() error) error {
	done := make(chan error)
	go func() { done <- inside(namespace, f) }()
	return <-done
}

// inside needs a goroutine of its own: where the way back fails, its thread stays
// locked, so that no other goroutine ever runs on it.
func inside(namespace *os.File, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := enter(namespace); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := enter(home); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

func enter(namespace *os.File) error {
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}
