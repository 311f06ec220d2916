// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups returns the supplementary groups of the peer when it connected.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, errno
		default:
			return groups[:size/4], nil
		}
	}
}

// peerPIDFD opens the process that connected. Since Linux 6.5 the socket itself
// holds on to it.
func peerPIDFD(fd int, cred *unix.Ucred) (int, error) {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		unix.CloseOnExec(pidfd)
		return pidfd, nil
	case errors.Is(err, unix.ENOPROTOOPT):
		return openPIDFD(fd, cred)
	default:
		return -1, fmt.Errorf("SO_PEERPIDFD: %w", err)
	}
}

// openPIDFD is for older kernels: it goes by the number, and refuses a process
// that cannot be the one that connected: it is younger than this call, it is
// another user's (but root's, who connected, may have become that), or nobody holds
// the other end any more. What is left is a number that was used up and given anew
// to a process of the same user, or of anybody where root connected, between
// connect and accept, while a relative kept the connection open.
func openPIDFD(fd int, cred *unix.Ucred) (int, error) {
	now, err := bootTicks()
	if err != nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	if err := samePeer(fd, cred, now); err != nil {
		unix.Close(pidfd)
		return -1, err
	}
	// Alive now, so what was read under the number was read of this process.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		unix.Close(pidfd)
		return -1, fmt.Errorf("the peer is gone: %w", err)
	}
	return pidfd, nil
}

func samePeer(fd int, cred *unix.Ucred, now uint64) error {
	start, err := startTicks(int(cred.Pid))
	if err != nil {
		return fmt.Errorf("the peer is gone: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", cred.Pid), &st); err != nil {
		return fmt.Errorf("the peer is gone: %w", err)
	}
	// Root may have become another user by now: `bailiff run` does, under sudo.
	if start > now || st.Uid != cred.Uid && cred.Uid != 0 {
		return fmt.Errorf("process %d is not the one that connected", cred.Pid)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return fmt.Errorf("poll the connection: %w", err)
	}
	if poll[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0 {
		return errors.New("the peer has hung up")
	}
	return nil
}

// The kernel tells start times in ticks of 10 ms since boot, on all machines
// that Go runs on.
func bootTicks() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the boot clock: %w", err)
	}
	return uint64(ts.Nano() / 10_000_000), nil
}

// startTicks reads a process's start time, field 22 of its stat.
func startTicks(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, field 2, ends with the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("stat of process %d has only %d fields", pid, len(fields)+2)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
