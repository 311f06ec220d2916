// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

var errInUse = errors.New("another bailiffd is using it")

// claim takes a file or directory for this process alone, until it is closed:
// two daemons over the same pins, cgroup or state would undo each other's work.
// The flag is what gives a daemon another one.
func claim(path string, mode int, flag string) (*os.File, error) {
	f, err := os.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w: stop it, or give this one another %s", path, errInUse, flag)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// claimPins takes the pins' directory, if it is there: nobody uses one that isn't.
func claimPins(dir string) (*os.File, error) {
	f, err := claim(dir, os.O_RDONLY, "--pin-dir")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// claimCgroup takes the cgroup of the sessions.
func claimCgroup(path string) (*os.File, error) { return claim(path, os.O_RDONLY, "--cgroup") }
