// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// prepareKept makes a run of a script with descriptors from 3 on, of which all are
// kept. The files are closed once the test ends.
func (h *host) prepareKept(t *testing.T, script string, files ...*os.File) (c *exec.Cmd, task string) {
	t.Helper()
	c, task = h.prepareRun("worker", "/bin/bash", "-c", h.expand(script))
	var numbers []string
	for i, file := range files {
		numbers = append(numbers, fmt.Sprint(3+i))
		t.Cleanup(func() { file.Close() })
	}
	// prepareRun's words begin with the program and `run`.
	c.Args = append([]string{c.Args[0], "run", "--keep-fd", strings.Join(numbers, ",")}, c.Args[2:]...)
	c.ExtraFiles = files
	return c, task
}

// testKept: what is handed on is used whatever the policy says; everything that
// starts from it is judged.
func testKept(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	kept, journal := filepath.Join(h.dir, "kept"), filepath.Join(h.dir, "journal")
	write(t, kept, "#!/bin/sh\n")
	must(t, os.Chmod(kept, 0o755))
	in, err := os.Open(kept)
	must(t, err)
	out, err := os.OpenFile(journal, os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	c, task := h.prepareKept(t, `cat <&3 && echo written >&4 || exit 1
cat %DIR%/kept && exit 2
cat /proc/self/fd/3 && exit 3
/proc/self/fd/3 && exit 4
exit 0`, in, out)
	s := session{finish(t, c), h, task}
	if s.ended(t, 0); s.stdout != "#!/bin/sh\n" {
		t.Errorf("read %q", s.stdout)
	}
	if text, err := os.ReadFile(journal); string(text) != "written\n" {
		t.Errorf("wrote %q: %v", text, err)
	}
	want := fmt.Sprintf(`3 "%s", 4 "%s"`, kept, journal)
	if started := s.events(t)[0]; started.Fields["descriptors"] != want {
		t.Errorf("the log says of it: %+v, want %s", started.Fields, want)
	}
	t.Run("sockets", func(t *testing.T) { testKeptSockets(t, h) })
}

// testKeptSockets: a TCP socket from outside reaches what the policy allows.
func testKeptSockets(t *testing.T, h *host) {
	port := listening(t)
	connected := func(t *testing.T) *os.File {
		t.Helper()
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		must(t, err)
		defer conn.Close()
		file, err := conn.(*net.TCPConn).File()
		must(t, err)
		return file
	}
	const send = `echo hello >&3 || exit 9; exit 0`
	if !h.full {
		c, _ := h.prepareKept(t, send, connected(t))
		finish(t, c).ended(t, 125).says(t, "--keep-fd 3", "basic tier")
		return
	}
	for policy, code := range map[string]int{
		simplePolicy: 9,
		simplePolicy + fmt.Sprintf("  network: [{allow: connect, ip: 127.0.0.1, ports: [%d]}]\n", port): 0,
	} {
		h.enforce(t, policy)
		c, _ := h.prepareKept(t, send, connected(t))
		finish(t, c).ended(t, code)
	}
}
