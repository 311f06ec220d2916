// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNoLimit says that processes can't be limited here.
var ErrNoLimit = errors.New("this host's cgroup v2 hierarchy has no pids controller")

// HostProcesses returns how many processes and threads the host can have at once.
func HostProcesses() (int, error) {
	most := 0
	for _, knob := range []string{"threads-max", "pid_max"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + knob)
		if err != nil {
			return 0, fmt.Errorf("find out how many processes the host can have: %w", err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("find out how many processes the host can have: %s: %w", knob, err)
		}
		if most == 0 || n < most {
			most = n
		}
	}
	return most, nil
}

// LimitProcesses bounds the processes and threads of all children together, and of
// each that is made from now on: a session that forks without end must leave the
// rest of the host, and other sessions, some. It is ErrNoLimit where the host can't.
func (p *Parent) LimitProcesses(all, each int) error {
	controllers, err := os.ReadFile(filepath.Join(p.root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("limit the sessions' processes: %w", err)
	}
	if !slices.Contains(strings.Fields(string(controllers)), "pids") {
		return ErrNoLimit
	}
	below, err := filepath.Rel(p.root, p.Path)
	if err != nil {
		return fmt.Errorf("limit the sessions' processes: %w", err)
	}
	at := p.root
	for _, name := range append(strings.Split(below, "/"), "") {
		if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+pids"), 0); err != nil {
			return fmt.Errorf("limit the sessions' processes: %w", err)
		}
		at = filepath.Join(at, name)
	}
	if err := limit(p.Path, all); err != nil {
		return err
	}
	p.each = each
	return nil
}

func limit(path string, processes int) error {
	if err := os.WriteFile(filepath.Join(path, "pids.max"), []byte(strconv.Itoa(processes)), 0); err != nil {
		return fmt.Errorf("limit the sessions' processes: %w", err)
	}
	return nil
}
