// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// testBoot does what a boot does: it loads without serving, and then starts the
// daemon for a service manager.
func testBoot(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	finish(t, h.daemon("--load")).ended(t, 1).says(t, "another bailiffd is using")
	finish(t, h.daemon("--load", "--remove")).ended(t, 2)
	h.stop(t, syscall.SIGTERM)
	if h.full {
		h.refusesNamespace(t, "--load")
		h.refusesNamespace(t, "--load", "--state-dir", t.TempDir(), "--pin-dir", "/sys/fs/bpf/"+filepath.Base(h.dir)+"/none")
	}
	if !kerneltest.InVM() { // there, detaching and loading takes long
		finish(t, h.daemon("--remove")).ok(t)
		must(t, os.Remove(filepath.Join(h.state, "sessions"))) // as on a host where none ever ran
	}
	loaded := finish(t, h.daemon("--load")).ok(t).stdout
	var generation int
	if n, err := fmt.Sscanf(loaded, "loaded; generation %d is in force", &generation); n != 1 || err != nil {
		t.Errorf("--load says %q", loaded)
	}
	pins, err := filepath.Glob("/sys/fs/bpf/" + filepath.Base(h.dir) + "/*/links/*")
	must(t, err)
	if len(pins) == 0 {
		t.Error("nothing is pinned")
	}
	heard := h.startManaged(t, time.Second)
	if got := h.status(t)["generation"]; fmt.Sprint(got) != fmt.Sprint(generation+1) {
		t.Errorf("the generation is %v after %d", got, generation)
	}
	h.prompt(t, "worker").confined(t, "after a boot")
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if !awaitMessage(heard, want) {
			t.Errorf("the service manager did not hear %s", want)
		}
	}
	h.stop(t, syscall.SIGTERM)
	if !awaitMessage(heard, "STOPPING=1") {
		t.Error("the service manager did not hear STOPPING=1")
	}
	h.start(t)
}

// refusesNamespace starts the daemon where it sees no process of the host: it may
// take that neither for a kernel without LSM programs, nor for a host to enforce on.
func (h *host) refusesNamespace(t *testing.T, flags ...string) {
	t.Helper()
	c := h.daemon(flags...)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	finish(t, c).ended(t, 1).says(t, "PID namespace")
}

// startManaged starts the daemon as a service manager does, and returns what that
// hears.
func (h *host) startManaged(t *testing.T, watchdog time.Duration) <-chan string {
	t.Helper()
	name := filepath.Join(h.dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	heard := make(chan string, 1000)
	go func() {
		defer close(heard)
		for b := make([]byte, 1000); ; {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			heard <- string(b[:n])
		}
	}()
	h.environment = []string{"NOTIFY_SOCKET=" + name, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
	h.start(t)
	h.environment = nil
	return heard
}

// awaitMessage drops messages until one that begins so.
func awaitMessage(heard <-chan string, begin string) bool {
	for limit := time.After(time.Minute); ; {
		select {
		case text, open := <-heard:
			if strings.HasPrefix(text, begin) {
				return true
			}
			if !open {
				return false
			}
		case <-limit:
			return false
		}
	}
}
