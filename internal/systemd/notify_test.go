// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestTell(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@bailiff-test-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", "30000000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		m, err := FromEnvironment()
		if err != nil || m.Watchdog() != 30*time.Second {
			t.Fatalf("a watchdog of %v, %v", m.Watchdog(), err)
		}
		if os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("WATCHDOG_USEC") != "" {
			t.Error("children would inherit the manager")
		}
		if err := m.Tell("READY=1", "STATUS=serves"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := l.Read(b)
		if got := string(b[:n]); err != nil || got != "READY=1\nSTATUS=serves" {
			t.Errorf("the manager heard %q, %v", got, err)
		}
	}
}

func TestNoManager(t *testing.T) {
	for _, c := range []struct {
		socket, usec, pid string
		bad               bool
	}{
		{"", "", "", false},
		{"", "1000", "", false},
		{"/nowhere", "1000", "1", false},
		{"/nowhere", "soon", "", true},
		{"/nowhere", "-1", "", true},
	} {
		t.Setenv("NOTIFY_SOCKET", c.socket)
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		m, err := FromEnvironment()
		if (err != nil) != c.bad || m.Watchdog() != 0 {
			t.Errorf("%+v: a watchdog of %v, %v", c, m.Watchdog(), err)
		}
		if err := m.Tell("READY=1"); (err != nil) != (c.socket != "") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
