// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags of a task, as /proc/PID/stat shows them.
const (
	flagKernelWorker = 0x10     // PF_IO_WORKER: a thread that the kernel added for io_uring
	flagKernelThread = 0x200000 // PF_KTHREAD
)

// ticks is the unit of times in /proc: sysconf(_SC_CLK_TCK), which Linux fixes.
const ticks = 100

// stat is what /proc/PID/stat tells of a process, or of a thread.
type stat struct {
	state                  string
	parent, group, session int
	terminal               uint64 // that controls it; 0: none
	flags                  uint64
	threads                int
	start                  uint64 // ticks since boot
}

// ended: nothing of it runs any more.
func (s *stat) ended() bool { return strings.ContainsAny(s.state, "ZX") && s.threads <= 1 }

// leaderless: its first thread has ended, and others have not.
func (s *stat) leaderless() bool { return strings.ContainsAny(s.state, "ZX") && s.threads > 1 }

func processStat(pid int) (stat, error) { return readStat(fmt.Sprintf("/proc/%d/stat", pid)) }

func readStat(path string) (stat, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return stat{}, fmt.Errorf("look at a process: %w", err)
	}
	s, err := parseStat(string(data))
	if err != nil {
		return stat{}, fmt.Errorf("look at a process: %s: %w", path, err)
	}
	return s, nil
}

// parseStat reads what follows the name, which may hold anything.
func parseStat(text string) (s stat, err error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return s, errors.New("it is shorter than it must be")
	}
	number := func(i int) uint64 {
		n, parse := strconv.ParseInt(fields[i], 10, 64)
		err = errors.Join(err, parse)
		return uint64(n)
	}
	s = stat{
		state: fields[0], parent: int(number(1)), group: int(number(2)), session: int(number(3)),
		terminal: uint64(number(4)), flags: number(6), threads: int(number(17)), start: number(19),
	}
	return s, err
}

// ticksNow is the time since boot as a process that starts now would show it, or a
// little earlier.
func ticksNow() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the boot clock: %w", err)
	}
	return uint64(ts.Nano()) / (1e9 / ticks), nil
}

// statusFields returns lines of /proc/PID/status by their names.
func statusFields(pid int) (map[string]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields, nil
}
