// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/cgroup"
)

// Remove takes everything off the host but the state directory: it ends every
// session (a process that was confined must not run on unconfined), then removes
// the programs, the cgroups, and the BPF file system where a daemon mounted it.
// It returns how many sessions it ended. No daemon may be running, and no session
// may ask for it.
func Remove(c Config) (ended int, err error) {
	parent, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return 0, err
	}
	if name, inside, err := parent.Of(os.Getpid()); err != nil || inside {
		return 0, errors.Join(err, fmt.Errorf("remove Bailiff: this is done from outside of any session, and this is the session %s", name))
	}
	s, err := openStore(c.StateDir)
	if err != nil {
		return 0, stopFirst(err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pins, err := claimPins(c.PinDir)
	if err != nil {
		return 0, stopFirst(err)
	}
	defer pins.Close() // nil where there are none
	sessions, err := claimCgroup(parent.Path)
	if err != nil {
		return 0, stopFirst(err)
	}
	defer sessions.Close()
	if ended, err = endSessions(parent); err != nil {
		return ended, err
	}
	if err := bpf.Remove(c.PinDir); err != nil {
		return ended, err
	}
	pins.Close() // it keeps the file system busy
	if err := bpf.Unmount(c.PinDir); err != nil {
		return ended, err
	}
	if err := parent.Remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, fmt.Errorf("remove the sessions' cgroup: %w", err)
	}
	for _, name := range []string{"admin.sock", "agent.sock"} {
		if err := os.Remove(c.RunDir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ended, fmt.Errorf("remove a socket: %w", err)
		}
	}
	return ended, nil
}

// stopFirst says what to do where a daemon runs.
func stopFirst(err error) error {
	if !errors.Is(err, errInUse) {
		return err
	}
	return fmt.Errorf("remove Bailiff: %w: first stop the daemon (systemctl stop bailiffd)", err)
}

// endSessions kills the sessions and removes their cgroups. It returns how many
// had a process.
func endSessions(parent *cgroup.Parent) (ended int, err error) {
	children, err := parent.Children()
	if err != nil {
		return 0, err
	}
	for _, name := range children {
		group, err := parent.Child(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return ended, err
		}
		populated, err := group.Populated()
		if err := errors.Join(err, group.Kill(), group.Remove()); err != nil {
			return ended, err
		}
		if populated {
			ended++
		}
	}
	return ended, nil
}
