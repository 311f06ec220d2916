// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Argument is the only one of the child's command line; a main that finds it
// calls Serve and nothing else.
const Argument = "canary"

// Child is a running canary. It is for one goroutine.
type Child struct {
	cmd     *exec.Cmd
	pidfd   int
	orders  *os.File
	reports *os.File
	enc     *gob.Encoder
	dec     *gob.Decoder
}

// Start runs the executable, which must call Serve. The calling goroutine must be
// locked to its thread: the child is killed when that thread ends.
func Start(executable string) (*Child, error) {
	ordersHere, ordersThere, reportsHere, reportsThere, err := pipes()
	if err != nil {
		return nil, err
	}
	c := &Child{pidfd: -1, orders: ordersHere, reports: reportsHere}
	c.cmd = &exec.Cmd{
		Path: executable, Args: []string{executable, Argument}, Env: []string{}, Dir: "/",
		Stdin: ordersThere, Stdout: reportsThere,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, PidFD: &c.pidfd, Setsid: true},
	}
	err = c.cmd.Start()
	ordersThere.Close()
	reportsThere.Close()
	if err != nil {
		ordersHere.Close()
		reportsHere.Close()
		return nil, fmt.Errorf("start %s: %w", executable, err)
	}
	if c.pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(c.PID(), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("hold the process: %w", err), c.Close())
		}
	}
	c.enc, c.dec = gob.NewEncoder(c.orders), gob.NewDecoder(c.reports)
	return c, nil
}

func pipes() (ordersHere, ordersThere, reportsHere, reportsThere *os.File, err error) {
	if ordersThere, ordersHere, err = os.Pipe(); err != nil {
		return nil, nil, nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	if reportsHere, reportsThere, err = os.Pipe(); err != nil {
		ordersHere.Close()
		ordersThere.Close()
		return nil, nil, nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return ordersHere, ordersThere, reportsHere, reportsThere, nil
}

// PID returns the child's process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// PIDFD returns a descriptor of the child, which Close closes.
func (c *Child) PIDFD() int { return c.pidfd }

// Try has the child carry an order out, and returns how each act ended: nil, or
// the error of the kernel. After an error the child is of no more use.
func (c *Child) Try(o Order, deadline time.Time) ([]error, error) {
	if err := errors.Join(c.orders.SetWriteDeadline(deadline), c.reports.SetReadDeadline(deadline)); err != nil {
		return nil, fmt.Errorf("set a deadline: %w", err)
	}
	if err := c.enc.Encode(o); err != nil {
		return nil, fmt.Errorf("give an order: %w", err)
	}
	var r report
	if err := c.dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("hear how it went: %w", err)
	}
	if r.Failure != "" {
		return nil, errors.New(r.Failure)
	}
	if len(r.Ends) != len(o.Acts) {
		return nil, fmt.Errorf("hear how it went: of %d acts, %d are told", len(o.Acts), len(r.Ends))
	}
	ends := make([]error, len(r.Ends))
	for i, errno := range r.Ends {
		if errno != 0 {
			ends[i] = syscall.Errno(errno)
		}
	}
	return ends, nil
}

// Close kills the child and waits for its end.
func (c *Child) Close() error {
	err := c.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_ = c.cmd.Wait() // it was killed
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
	}
	if err := errors.Join(err, c.orders.Close(), c.reports.Close()); err != nil {
		return fmt.Errorf("end the canary: %w", err)
	}
	return nil
}
