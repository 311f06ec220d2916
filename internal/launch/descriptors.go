// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// closeOnExec marks every descriptor but standard input, output and error, and
// those that were asked to be kept: an open file, ring or socket from before would
// stay outside what the session may do. What this process opens later is marked
// when it is opened.
func closeOnExec(list []kept) error {
	first := lowestKept
	for _, k := range list {
		if err := markRange(first, k.Number-1); err != nil {
			return err
		}
		first = k.Number + 1
	}
	return markRange(first, math.MaxInt32)
}

// markRange marks the descriptors with these numbers, both included.
func markRange(first, last int) error {
	if first > last {
		return nil
	}
	if err := unix.CloseRange(uint(first), uint(last), unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open descriptors: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first && fd <= last {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// checkStandard refuses standard descriptors that are no files, pipes or
// sockets but objects of the kernel (an io_uring, a BPF map): they can't be
// left behind and act past the hooks.
func checkStandard() error {
	for fd, name := range []string{"input", "output", "error"} {
		target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && strings.HasPrefix(target, "anon_inode:") {
			return fmt.Errorf("standard %s is %s, which a session must not inherit: redirect it to a file or /dev/null", name, target)
		}
	}
	return nil
}
