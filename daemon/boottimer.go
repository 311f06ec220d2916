// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// bootTimer fires at a time of the boot clock. Timers of the Go runtime stand
// still while the host is suspended, and that clock does not.
type bootTimer struct{ f *os.File }

func newBootTimer() (*bootTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer of the boot clock: %w", err)
	}
	return &bootTimer{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// set has the timer fire at a time, at once if that has passed, in place of when
// it was to fire; 0 is never. It may be called while another goroutine waits.
func (t *bootTimer) set(at time.Duration) error {
	conn, err := t.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	control := conn.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
	})
	if err == nil {
		err = control
	}
	if err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	return nil
}

// wait returns when the timer has fired; os.ErrClosed says that it was closed.
func (t *bootTimer) wait() error {
	var times [8]byte
	_, err := t.f.Read(times[:])
	return err
}

func (t *bootTimer) close() error { return t.f.Close() }
