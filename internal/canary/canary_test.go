// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Argument {
		os.Exit(Serve())
	}
	os.Exit(m.Run())
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func start(t *testing.T) *Child {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	c, err := Start("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An unconfined child can do everything, and what it sends arrives.
func TestActs(t *testing.T) {
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.LocalAddr().(*net.UDPAddr).Port)
	c := start(t)
	defer c.Close()
	for range 2 {
		ends, err := c.Try(Order{Acts: []Act{
			{Kind: Open, Path: os.DevNull}, {Kind: Open, Path: "/does-not-exist"}, {Kind: Connect, Port: port},
			{Kind: Send, Port: port}, {Kind: SendHeld, Port: port}, {Kind: Hold, Port: port}, {Kind: SendHeld, Port: port}, {Kind: 99},
		}}, soon())
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, unix.ENOENT, nil, nil, unix.ENOTSOCK, nil, nil, unix.ENOSYS} {
			if !errors.Is(ends[i], want) {
				t.Errorf("act %d: %v, want %v", i, ends[i], want)
			}
		}
		for range 2 {
			l.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, _, err := l.ReadFrom(make([]byte, 10)); n != 1 || err != nil {
				t.Errorf("%d bytes came: %v", n, err)
			}
		}
	}
}

func TestLandlock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t)
	defer c.Close()
	o := Order{Acts: []Act{{Kind: Open, Path: os.DevNull}, {Kind: Open, Path: file}}}
	ends, err := c.Try(o, soon())
	if err != nil || ends[0] != nil || ends[1] != nil {
		t.Fatalf("before: %v, %v", ends, err)
	}
	o.Landlock = os.DevNull
	ends, err = c.Try(o, soon())
	if err != nil && strings.Contains(err.Error(), "landlock create ruleset") {
		t.Skipf("SKIP-REASON: landlock: %v", err)
	}
	if err != nil || ends[0] != nil || !errors.Is(ends[1], unix.EACCES) {
		t.Errorf("restricted: %v, %v", ends, err)
	}
}

// A child that is stopped or dead is told as such in time, and can be closed.
func TestTimeout(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		c := start(t)
		if err := unix.PidfdSendSignal(c.PIDFD(), signal, nil, 0); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := c.Try(Order{}, time.Now().Add(200*time.Millisecond)); err == nil {
			t.Errorf("%v: it answers", signal)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%v: noticed after %v", signal, took)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%v: %v", signal, err)
		}
		if err := unix.Kill(c.PID(), 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("%v: its process is still there: %v", signal, err)
		}
	}
}
