// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Real-time signals that no C library keeps for itself.
const firstRealTime, lastRealTime = 35, 64

// passedOn are the signals that the command gets when the parent gets them.
// SIGINT and SIGQUIT are caught too: see forward. SIGPIPE is caught so that a
// summary nobody reads doesn't hide the command's own status.
func passedOn() []os.Signal {
	sigs := []os.Signal{unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGPWR, unix.SIGIO, unix.SIGCONT, unix.SIGQUIT, unix.SIGPIPE}
	for s := syscall.Signal(firstRealTime); s <= lastRealTime; s++ {
		sigs = append(sigs, s)
	}
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if !signal.Ignored(s) { // nohup, background jobs: leave it so for the command
			sigs = append(sigs, s)
		}
	}
	return sigs
}

// catchSignals starts catching, so that nothing ends the parent while the
// command lives.
func catchSignals() chan os.Signal {
	caught := make(chan os.Signal, 64)
	signal.Notify(caught, passedOn()...)
	return caught
}

// forward passes caught signals on to the child until caught is closed.
func forward(caught <-chan os.Signal, c *child) {
	defer unix.Close(c.pidfd)
	for s := range caught {
		sig, ok := s.(syscall.Signal)
		switch {
		case !ok, sig == unix.SIGPIPE:
			continue
		case (sig == unix.SIGINT || sig == unix.SIGQUIT) && inForeground():
			continue // the terminal sent it to the command as well
		case sig == unix.SIGCONT && !c.stopped():
			continue // sent to the whole group, or after the parent's own stop
		}
		// It may have ended since: then there is nobody to tell.
		_ = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	}
}

// inForeground says whether keys of the controlling terminal signal this
// process group.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
