// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// secbitNoRoot (SECBIT_NOROOT): user 0 gets no capabilities at an exec.
const secbitNoRoot = 1 << 0

// keepCapabilities leaves this thread, and whatever it execs, those of its
// capabilities that are in mask (bit n is number n), and no way to others.
//
// What an exec gives to user 0 are the bounding set and the inheritable set; to
// other users, the ambient set. Where the bounding set can't be made smaller
// because CAP_SETPCAP is missing, no_new_privs, which must be set, sees to it that
// an exec gives nothing that the thread did not have.
func keepCapabilities(mask uint64) error {
	have, err := permitted()
	if err != nil {
		return err
	}
	bounding, err := boundingSet()
	if err != nil {
		return err
	}
	keep := have & bounding & mask
	if err := limitBounding(keep); err != nil {
		return err
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if err := setAmbient(keep); err != nil {
		return err
	}
	if left, err := permitted(); err != nil || left != keep {
		return errors.Join(err, fmt.Errorf("set capabilities %#x: still %#x", keep, left))
	}
	return nil
}

func permitted() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // the low 32 and the high 32
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("get capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// boundingSet reads the set, which also tells how many capabilities this kernel
// knows: /proc is closed to a process that is labelled already.
func boundingSet() (set uint64, err error) {
	for n := range 64 {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		switch {
		case errors.Is(err, syscall.EINVAL):
			return set, nil
		case err != nil:
			return 0, fmt.Errorf("read the bounding set: %w", err)
		}
		set |= uint64(in) << n
	}
	return set, nil
}

// limitBounding drops all but keep from the bounding set of this thread, where it
// may do that.
func limitBounding(keep uint64) error {
	set, err := boundingSet()
	if err != nil {
		return err
	}
	for n := range 64 {
		if set&^keep&(1<<n) == 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if errors.Is(err, syscall.EPERM) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
		}
	}
	return nil
}

func setCapabilities(keep uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := uint32(keep >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: half}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities %#x: %w", keep, err)
	}
	return nil
}

// setAmbient makes the ambient set keep where an exec would lose it else, and
// empty where user 0 has it from the bounding set.
func setAmbient(keep uint64) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("get securebits: %w", err)
	}
	if unix.Geteuid() == 0 && bits&secbitNoRoot == 0 {
		return nil
	}
	for n := range 64 {
		if keep&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", n, err)
		}
	}
	return nil
}
