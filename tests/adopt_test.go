// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// family is a program that evaluates what it is told, line by line, itself, in
// another thread, or in one of two children.
const family = `
import ctypes, errno, mmap, os, queue, socket, sys, threading, time

kept, children = {}, {}
name = lambda e: errno.errorcode.get(e.errno, str(e))

def opened(key, path, flags=os.O_RDONLY):
    kept[key] = os.open(path, flags)
    return "ok"

def closed(key):
    os.close(kept.pop(key))
    return "ok"

def mapped(path):
    fd = os.open(path, os.O_RDONLY)
    kept["map"] = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.close(fd)
    return "ok"

def connected(key, port):
    kept[key] = socket.create_connection(("127.0.0.1", port))
    return "ok"

def spoken(key, path):
    kept[key] = socket.socket(socket.AF_UNIX)
    kept[key].connect(path)
    return "ok"

def sent(key):
    kept[key].send(b"x")
    return "ok"

# io_uring_setup
def ring():
    kept["ring"] = ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120))
    return "ok" if kept["ring"] >= 0 else "none"

def multiply():
    def run():
        while True:
            pid = os.fork()
            if pid == 0:
                if os.fork() == 0:
                    time.sleep(0.3)
                os._exit(0)
            os.waitpid(pid, 0)
    threading.Thread(target=run, daemon=True).start()
    return "ok"

def evaluated(line):
    try:
        return eval(line)
    except OSError as e:
        return name(e)
    except Exception as e:
        return repr(e)

def child(key):
    r1, w1 = os.pipe()
    r2, w2 = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(w1), os.close(r2)
        for line in os.fdopen(r1):
            os.write(w2, (str(evaluated(line)) + "\n").encode())
        os._exit(0)
    os.close(r1), os.close(w2)
    children[key] = (os.fdopen(w1, "w", buffering=1), os.fdopen(r2))
    return pid

def told(key, line):
    to, answers = children[key]
    print(line, file=to)
    return answers.readline().strip() or "gone"

asked, answers = queue.Queue(), queue.Queue()

def aside(line):
    asked.put(line)
    return answers.get()

print(child("a"), child("b"), flush=True)
threading.Thread(target=lambda: [answers.put(evaluated(line)) for line in iter(asked.get, None)], daemon=True).start()
for line in sys.stdin:
    print(evaluated(line), flush=True)
`

// relatives are the processes of a family that nobody confines yet.
type relatives struct {
	c        *exec.Cmd
	to       io.Writer
	answers  *bufio.Scanner
	children []int // a and b
	cgroup   string
}

func (h *host) family(t *testing.T) *relatives {
	t.Helper()
	r := &relatives{c: exec.Command("/usr/bin/python3", "-c", family)}
	r.c.Dir = h.work
	r.c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	to, err := r.c.StdinPipe()
	must(t, err)
	out, err := r.c.StdoutPipe()
	must(t, err)
	must(t, r.c.Start())
	r.to, r.answers = to, bufio.NewScanner(out)
	t.Cleanup(func() {
		for _, pid := range r.pids(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
		}
		_ = r.c.Wait() // killed
	})
	if !r.answers.Scan() {
		t.Fatal("the family said nothing")
	}
	for _, field := range strings.Fields(r.answers.Text()) {
		pid, err := strconv.Atoi(field)
		must(t, err)
		r.children = append(r.children, pid)
	}
	r.cgroup = cgroupOf(t, r.c.Process.Pid)
	return r
}

// does fails the test unless an expression has a value.
func (r *relatives) does(t *testing.T, expression, want string) {
	t.Helper()
	if got := r.ask(t, expression); got != want {
		t.Errorf("%s: %s, want %s", expression, got, want)
	}
}

func (r *relatives) ask(t *testing.T, expression string) string {
	t.Helper()
	fmt.Fprintln(r.to, expression)
	if !r.answers.Scan() {
		t.Fatalf("%s: the family is gone", expression)
	}
	return r.answers.Text()
}

// pids returns all its processes that have not ended.
func (r *relatives) pids(t *testing.T) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(t, err)
	for _, entry := range entries {
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		pid, number := strconv.Atoi(entry.Name())
		if err != nil || number != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[0] != "Z" && fields[0] != "X" && fields[3] == strconv.Itoa(r.c.Process.Pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	_, path, _ := strings.Cut("\n"+string(data), "\n0::")
	path, _, _ = strings.Cut(path, "\n")
	return path
}

func (h *host) adopt(t *testing.T, pid int, flags ...string) result {
	t.Helper()
	return h.bailiff(t, append([]string{"sessions", "adopt", strconv.Itoa(pid), "--agent", "worker"}, flags...)...)
}

// free fails the test unless the family runs where it did, and may do anything.
func (r *relatives) free(t *testing.T, h *host, secret string) {
	t.Helper()
	for _, pid := range append(r.children, r.c.Process.Pid) {
		if now := cgroupOf(t, pid); now != r.cgroup {
			t.Errorf("process %d is in %s, was in %s", pid, now, r.cgroup)
		}
	}
	r.does(t, "opened('again', '"+secret+"')", "ok")
	r.does(t, "closed('again')", "ok")
	h.nothingStands(t)
}

// nothingStands fails the test if a cgroup is left that a tree stood still in.
func (h *host) nothingStands(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(h.sessionsDirectory + "-adopt-*")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// adoptedPolicy lets connect to one port.
const adoptedPolicy = simplePolicy + `
  network: [{allow: connect, ip: 127.0.0.1, ports: [PORT]}]
`

// listening returns the port of a listener that accepts whatever comes.
func listening(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }() // until it is reset
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// testAdopt puts running processes into sessions.
func testAdopt(t *testing.T, h *host) {
	allowed, forbidden := listening(t), listening(t)
	h.enforce(t, strings.NewReplacer("PORT", strconv.Itoa(allowed), "shell]", "shell, python]").Replace(adoptedPolicy))
	secret := filepath.Join(h.dir, "adopt/secret")
	write(t, secret, "secret")
	write(t, filepath.Join(h.work, "notes"), "notes")
	h.adopt(t, 1).ended(t, 1)
	if !h.full {
		r := h.family(t)
		h.adopt(t, r.c.Process.Pid).ended(t, 1).says(t, "basic tier")
		r.free(t, h, secret)
		h.enforce(t, simplePolicy)
		return
	}
	h.adopt(t, h.process.Process.Pid).ended(t, 1).says(t, "is bailiffd")
	t.Run("confined", func(t *testing.T) { testAdoptConfined(t, h, secret, allowed, forbidden) })
	t.Run("refused", func(t *testing.T) { testAdoptRefused(t, h, secret) })
	t.Run("killed", func(t *testing.T) { testAdoptKilled(t, h, secret) })
	t.Run("multiplying", func(t *testing.T) { testAdoptMultiplying(t, h, secret) })
	h.enforce(t, simplePolicy)
}

// testAdoptConfined: all of a tree is confined from then on, and what it had is
// judged.
func testAdoptConfined(t *testing.T, h *host, secret string, allowed, forbidden int) {
	r := h.family(t)
	open := "opened('x', '" + secret + "')"
	r.does(t, open, "ok")
	r.does(t, "closed('x')", "ok")
	r.does(t, "opened('notes', 'notes')", "ok")
	r.does(t, "mapped('notes')", "ok")
	r.does(t, fmt.Sprintf("connected('good', %d)", allowed), "ok")
	r.does(t, fmt.Sprintf(`told("a", "connected('bad', %d)")`, forbidden), "ok")
	h.adopt(t, r.c.Process.Pid, "--dry-run").ended(t, 0)
	r.free(t, h, secret)
	out := h.adopt(t, r.c.Process.Pid, "--task", "adopted", "--context", "ticket=7").ok(t).stdout
	if !strings.Contains(out, "3 processes, 0 killed") || strings.Count(out, " closed ") != 1 {
		t.Errorf("it prints\n%s", out)
	}
	h.nothingStands(t)
	for _, pid := range append(r.children, r.c.Process.Pid) {
		if now := cgroupOf(t, pid); !strings.Contains(now, "/"+filepath.Base(h.sessionsDirectory)+"/s-") {
			t.Errorf("process %d is in %s", pid, now)
		}
	}
	bad := fmt.Sprintf("connected('other', %d)", forbidden)
	for _, expression := range []string{open, bad} {
		r.does(t, expression, "EACCES")
		r.does(t, `aside("`+expression+`")`, "EACCES")
		r.does(t, `told("a", "`+expression+`")`, "EACCES")
		r.does(t, `told("b", "`+expression+`")`, "EACCES")
	}
	r.does(t, `aside("opened('notes', 'notes')")`, "ok")
	r.does(t, "sent('good')", "ok")
	r.does(t, fmt.Sprintf("connected('more', %d)", allowed), "ok")
	if got := r.ask(t, `told("a", "sent('bad')")`); got == "ok" {
		t.Error("a forbidden connection still carries data")
	}
	h.adopt(t, r.c.Process.Pid).ended(t, 1).says(t, "in a session already")
	for _, ev := range h.events(t) {
		if ev.Task == "adopted" && ev.Message == "session started" && ev.Fields["adopted"] == "true" && ev.Fields["processes"] == "3" {
			return
		}
	}
	t.Error("the log does not tell of the adopted session")
}

// testAdoptRefused: what cannot be made safe is left as it was.
func testAdoptRefused(t *testing.T, h *host, secret string) {
	deputy := filepath.Join(h.dir, "adopt/deputy.sock")
	l, err := net.Listen("unix", deputy)
	must(t, err)
	defer l.Close()
	for _, x := range []struct{ name, act, what string }{
		{"a Unix socket", "spoken('x', '" + deputy + "')", deputy},
		{"an open file", "opened('x', '" + secret + "')", "adopt/secret"},
		{"a mapping", "mapped('" + secret + "')", "adopt/secret"},
		{"a ring", "ring()", "io_uring"},
		{"a raw socket", "kept.update(raw=socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)) or 'ok'", "RAW"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := h.family(t)
			r.does(t, `told("b", "`+x.act+`")`, "ok")
			out := h.adopt(t, r.c.Process.Pid).ended(t, 1).says(t, "was not adopted")
			if !strings.Contains(out.stdout, x.what) || !strings.Contains(out.stdout, strconv.Itoa(r.children[1])) {
				t.Errorf("it prints\n%s", out.stdout)
			}
			r.free(t, h, secret)
			if x.name == "a ring" {
				h.adopt(t, r.c.Process.Pid, "--kill-forbidden").ended(t, 1).says(t, "cannot be made safe")
				r.free(t, h, secret)
			}
		})
	}
}

// testAdoptKilled: a process with what is forbidden dies alone.
func testAdoptKilled(t *testing.T, h *host, secret string) {
	r := h.family(t)
	r.does(t, `told("b", "opened('x', '`+secret+`')")`, "ok")
	out := h.adopt(t, r.c.Process.Pid, "--kill-forbidden").ok(t)
	if !strings.Contains(out.stdout, "1 killed") {
		t.Errorf("it prints\n%s", out.stdout)
	}
	r.does(t, `told("a", "opened('x', '`+secret+`')")`, "EACCES")
	if got := r.ask(t, `told("b", "1")`); got != "gone" && got != "EPIPE" {
		t.Errorf("the killed process answers %s", got)
	}
}

// testAdoptMultiplying: a tree that forks without end, and whose processes lose
// their parents, is caught whole.
func testAdoptMultiplying(t *testing.T, h *host, secret string) {
	r := h.family(t)
	r.does(t, `told("a", "multiply()")`, "ok")
	time.Sleep(200 * time.Millisecond) // some of them live
	h.adopt(t, r.c.Process.Pid).ok(t)
	r.does(t, `told("a", "opened('x', '`+secret+`')")`, "EACCES")
	// Orphans of before are not of the tree: they end by themselves.
	caught := eventually(10*time.Second, func() bool {
		for _, pid := range r.pids(t) {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
			if err == nil && !strings.Contains(string(data), "/s-") {
				return false
			}
		}
		return true
	})
	if !caught {
		t.Error("processes of the tree are outside the session")
	}
}
