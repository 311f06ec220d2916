// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// evaluator is a program for a session that evaluates what it is told, line by
// line, and answers with the value, or with the name of the error.
const evaluator = `
import errno, mmap, os, socket, sys, threading, time

kept = {}
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
name = lambda e: errno.errorcode.get(e.errno, str(e)) if e.errno else str(e)

def opened(key, path, flags=os.O_RDONLY):
    kept[key] = os.open(path, flags)
    return "ok"

def read(key):
    return os.pread(kept[key], 100, 0).decode().strip()

def mapped(path):
    kept["map"] = mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ)
    return kept["map"][:4].decode()

def connected(key, host, port, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    s.connect((host, port))
    kept[key] = s
    return "ok"

def sent(key, text):
    kept[key].send(text.encode())
    return "ok"

# Receives until an error, and keeps how much came, when the last of it came, and
# how and when it ended.
def pump(key):
    got = kept["pump " + key] = dict(bytes=0, last=0, error="none", end=0)
    def run():
        try:
            while True:
                data = kept[key].recv(65536)
                if not data:
                    raise OSError(0, "end")
                got["bytes"] += len(data)
                got["last"] = now()
        except OSError as e:
            got["end"] = now()
            got["error"] = name(e)
    threading.Thread(target=run, daemon=True).start()
    return "ok"

def pumped(key):
    got = kept["pump " + key]
    return "%d %f %s %f" % (got["bytes"], got["last"], got["error"], got["end"])

print(os.environ["BAILIFF_SESSION"], flush=True)
for line in sys.stdin:
    try:
        answer = eval(line)
    except OSError as e:
        answer = name(e)
    except Exception as e:
        answer = repr(e)
    print(answer, flush=True)
`

// agent is a session that evaluates Python expressions.
type agent struct {
	session
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	id  string
}

func (h *host) agent(t *testing.T, name string) *agent {
	t.Helper()
	script := filepath.Join(h.work, "evaluator.py")
	write(t, script, evaluator)
	c, task := h.prepareRun(name, "python3", script)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	c.Stderr = os.Stderr
	must(t, c.Start())
	a := &agent{session: session{host: h, task: task}, cmd: c, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() { a.end() })
	a.id = a.line(t)
	return a
}

func (a *agent) line(t *testing.T) string {
	t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		t.Fatalf("hear from the session: %v", err)
	}
	return strings.TrimSpace(line)
}

// eval returns the answer to an expression.
func (a *agent) eval(t *testing.T, format string, args ...any) string {
	t.Helper()
	if _, err := io.WriteString(a.in, a.host.expand(fmt.Sprintf(format, args...))+"\n"); err != nil {
		t.Fatalf("tell the session: %v", err)
	}
	return a.line(t)
}

// answers fails the test unless an expression has one of some values.
func (a *agent) answers(t *testing.T, expression string, want ...string) {
	t.Helper()
	got := a.eval(t, "%s", expression)
	for _, w := range want {
		if got == w {
			return
		}
	}
	t.Errorf("%s is %s, want %s", expression, got, strings.Join(want, " or "))
}

// pumped returns what a pump has got.
func (a *agent) pumped(t *testing.T, key string) (p struct {
	bytes     int
	last, end time.Duration // of the boot clock
	error     string
}) {
	t.Helper()
	var last, end float64
	if _, err := fmt.Sscan(a.eval(t, "pumped(%q)", key), &p.bytes, &last, &p.error, &end); err != nil {
		t.Fatalf("read what was received: %v", err)
	}
	p.last, p.end = time.Duration(last*1e9), time.Duration(end*1e9)
	return p
}

func (a *agent) end() int {
	if a.cmd.ProcessState == nil {
		a.in.Close()
		a.cmd.Wait()
	}
	return a.cmd.ProcessState.ExitCode()
}
