// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long a stop of the command must last before the parent stops
// too: a terminal stops and continues both, in no fixed order.
const settle = 20 * time.Millisecond

// child is the stub and then the command: one process.
type child struct {
	pid     int
	pidfd   int
	reports *os.File // what the stub writes; ends with the exec
}

// start runs the stub in this process group and session, on the same
// standard and kept descriptors, and gives it its order. The kept ones are closed
// here, so that what is at their other ends notices when the command closes them.
// The caller must be locked to a thread that lives as long as the process: the
// child dies with it.
func start(executable string, args, environ []string, o order) (*child, error) {
	var orders, reports [2]int
	if err := pipes(&orders, &reports); err != nil {
		return nil, err
	}
	c := &child{pidfd: -1, reports: os.NewFile(uintptr(reports[0]), "reports")}
	orderWriter := os.NewFile(uintptr(orders[1]), "orders")
	defer orderWriter.Close()
	// Not os/exec: asking an os.File for its descriptor makes a terminal or
	// pipe that others share blocking, and who shares it would notice.
	orderAt, reportAt := freeNumbers(o.Kept)
	pid, err := syscall.ForkExec(executable, append(slices.Clone(args), strconv.Itoa(orderAt), strconv.Itoa(reportAt)), &syscall.ProcAttr{
		Env:   environ,
		Files: childFiles(o.Kept, map[int]int{orderAt: orders[0], reportAt: reports[1]}),
		Sys:   &syscall.SysProcAttr{PidFD: &c.pidfd},
	})
	unix.Close(orders[0])
	unix.Close(reports[1])
	for _, k := range o.Kept {
		unix.Close(k.Number)
	}
	if err != nil {
		c.reports.Close()
		return nil, fmt.Errorf("start the launcher %s: %w", executable, err)
	}
	c.pid = pid
	if c.pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			c.abandon()
			return nil, fmt.Errorf("hold the launcher: %w: a kernel from 5.3 on is needed", err)
		}
	}
	var message bytes.Buffer
	if err := gob.NewEncoder(&message).Encode(o); err != nil {
		c.abandon()
		return nil, fmt.Errorf("encode the order: %w", err)
	}
	// A stub that died early reads nothing: its status says more.
	_, _ = orderWriter.Write(message.Bytes())
	return c, nil
}

// childFiles says which descriptor of ours each number of the child's is. The kept
// ones must be among them: syscall.ForkExec may put its own on any number that is
// not.
func childFiles(list []kept, own map[int]int) []uintptr {
	const closed = ^uintptr(0)
	is := map[int]int{0: 0, 1: 1, 2: 2}
	maps.Copy(is, own)
	for _, k := range list {
		is[k.Number] = k.Number
	}
	files := slices.Repeat([]uintptr{closed}, slices.Max(slices.Collect(maps.Keys(is)))+1)
	for number, fd := range is {
		files[number] = uintptr(fd)
	}
	return files
}

func pipes(pairs ...*[2]int) error {
	for _, p := range pairs {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("make a pipe: %w", err)
		}
	}
	return nil
}

func (c *child) abandon() {
	_ = unix.Kill(c.pid, unix.SIGKILL)
	_, _ = unix.Wait4(c.pid, nil, 0, nil)
	c.reports.Close()
}

// follow waits for the end, and stops this process when only the child stopped,
// so that a shell sees its job stop.
func (c *child) follow() (Status, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(c.pid, &ws, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return Status{}, fmt.Errorf("wait for the command: %w", err)
		case ws.Stopped():
			c.followStop(ws.StopSignal())
		case ws.Signaled():
			return Status{Signal: ws.Signal()}, nil
		default:
			return Status{Code: ws.ExitStatus()}, nil
		}
	}
}

// followStop raises the stop on this very thread, so that it has happened
// before the next instruction. The SIGCONT that ends it is passed on.
func (c *child) followStop(sig syscall.Signal) {
	time.Sleep(settle)
	if c.stopped() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
	}
}

// stopped asks for the state of now: a wait status may be older.
func (c *child) stopped() bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(c.pid) + "/stat")
	if err != nil {
		return false
	}
	// "PID (NAME) STATE ...": the name may hold anything.
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return ok && len(rest) > 0 && rest[0] == 'T'
}
