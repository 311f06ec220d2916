// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// labelledAgents returns the numbers in the labels of all processes there are. A
// label stays with a process that somebody moves out of its session's cgroup.
func (e *Enforcer) labelledAgents() (map[uint32]bool, error) {
	agents := map[uint32]bool{}
	if !e.full {
		return agents, nil
	}
	see := func(pid int) error {
		number, err := e.labelOfProcess(pid)
		if err == nil {
			agents[number] = true
		}
		return err
	}
	if err := eachProcess(see); err != nil {
		return nil, fmt.Errorf("look for processes with a label: %w", err)
	}
	return agents, nil
}

// labelOfProcess returns the agent's number in a process's label; 0: it has none,
// or there is no such process. Its threads have their leader's label, or none yet.
func (e *Enforcer) labelOfProcess(pid int) (uint32, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	var label enforcerLabel
	err = e.maps[enforcerMapLabels].Lookup(uint32(pidfd), &label)
	if ignoreMissing(err) != nil && !errors.Is(err, unix.ESRCH) {
		return 0, fmt.Errorf("look up the label of process %d: %w", pid, err)
	}
	return label.Agent, nil
}

// passes is how often all processes are looked at where their numbers begin anew
// meanwhile.
const passes = 5

// eachProcess visits all processes, so that of those that go on forking and ending
// one at least is met of each line of descent. Numbers are given in ascending
// order, and visited so: a child is ahead of the visit as its parent was. That
// fails where the parent's number is from before the numbers began anew. Then the
// child's is not, so a second visit meets it, unless they begin anew again.
func eachProcess(visit func(pid int) error) error {
	if err := CheckNamespace(); err != nil {
		return err
	}
	last, err := lastProcess()
	for done, n := 0, 0; done < 2 && err == nil; n++ {
		if n == passes {
			return errors.New("process numbers begin anew too often")
		}
		if err := visitProcesses(visit); err != nil {
			return err
		}
		before := last
		last, err = lastProcess()
		if done++; last < before {
			done = 0
		}
	}
	return err
}

// lastProcess returns the number that was given to a process last.
func lastProcess() (int, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 5 {
		return 0, fmt.Errorf("/proc/loadavg says %q", text)
	}
	return strconv.Atoi(fields[4])
}

// visitProcesses reads /proc an entry at a time: what begins while one is visited
// is read after it.
func visitProcesses(visit func(pid int) error) error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	for buffer := make([]byte, 512); ; {
		n, err := unix.Getdents(int(proc.Fd()), buffer)
		if err != nil {
			return os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			return nil
		}
		name, next, ok := firstEntry(buffer[:n])
		if !ok {
			return io.ErrUnexpectedEOF
		}
		if pid, err := strconv.Atoi(name); err == nil {
			if err := visit(pid); err != nil {
				return err
			}
		}
		if _, err := proc.Seek(next, io.SeekStart); err != nil {
			return err
		}
	}
}

// firstEntry returns the name of the first of what getdents read, and the place in
// the directory where the next one begins.
func firstEntry(b []byte) (name string, next int64, ok bool) {
	const header = 8 + 8 + 2 + 1 // struct linux_dirent64
	if len(b) < header {
		return "", 0, false
	}
	end := int(binary.NativeEndian.Uint16(b[16:]))
	if end < header || end > len(b) {
		return "", 0, false
	}
	text, _, _ := bytes.Cut(b[header:end], []byte{0})
	return string(text), int64(binary.NativeEndian.Uint64(b[8:])), true
}
