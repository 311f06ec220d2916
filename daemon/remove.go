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
// the programs and the cgroups. It returns how many sessions it ended. No daemon
// may be running.
func Remove(c Config) (ended int, err error) {
	s, err := openStore(c.StateDir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pins, err := claimPins(c.PinDir)
	if err != nil {
		return 0, err
	}
	defer pins.Close() // nil where there are none
	parent, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return 0, err
	}
	sessions, err := claimCgroup(parent.Path)
	if err != nil {
		return 0, err
	}
	defer sessions.Close()
	children, err := parent.Children()
	if err != nil {
		return 0, err
	}
	for _, name := range children {
		group, err := parent.Child(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(group.Kill(), group.Remove())
		}
		if err != nil {
			return ended, err
		}
		ended++
	}
	if _, err := bpf.Remove(c.PinDir); err != nil {
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
