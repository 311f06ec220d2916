// SPDX-License-Identifier: Apache-2.0

// Package systemd tells the service manager how the daemon is: sd_notify(3) and
// sd_watchdog_enabled(3), without a library. Where no manager asked, it does nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Manager is who started this process and wants to hear from it. The zero value
// wants to hear nothing.
type Manager struct {
	socket   string
	watchdog time.Duration
}

// FromEnvironment returns the manager that the environment names, and takes it out
// of there: a child that spoke to it would speak for the daemon.
func FromEnvironment() (Manager, error) {
	m := Manager{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return m, fmt.Errorf("unset %s: %w", name, err)
		}
	}
	if usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 {
		return m, fmt.Errorf("read WATCHDOG_USEC=%q: it is no number of microseconds", usec)
	}
	m.watchdog = time.Duration(n) * time.Microsecond
	return m, nil
}

// Watchdog returns how often the manager must be told WATCHDOG=1, or it kills this
// process; 0: never.
func (m Manager) Watchdog() time.Duration {
	if m.socket == "" {
		return 0
	}
	return m.watchdog
}

// Tell sends assignments such as READY=1.
func (m Manager) Tell(assignments ...string) error {
	if m.socket == "" {
		return nil
	}
	// The net package takes a leading @ for an abstract name, as systemd does.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
