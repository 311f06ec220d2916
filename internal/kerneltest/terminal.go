// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// NewTerminal makes a pseudoterminal. It returns the master, which is the caller's
// to close, and the path of the slave, which may be opened.
func NewTerminal() (master int, slave string, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("make a terminal: %w", err)
	}
	err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	if err == nil {
		var n int
		n, err = unix.IoctlGetInt(master, unix.TIOCGPTN)
		slave = fmt.Sprint("/dev/pts/", n)
	}
	if err != nil {
		unix.Close(master)
		return -1, "", fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, nil
}
