// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// nobody is the ordinary user.
const nobody = 65534

// field is what attacks aim at and neighbours use: nothing in it is protected by
// owners or modes. Workers get it by their environment.
type field struct {
	Dir    string // of everything below
	Work   string // the session's own: everything is allowed there but in sealed, and on .env
	Binary string // this test, which the session may run
	Socket string // the admin socket

	Port  int // TCP and UDP, all addresses: a session may connect to 127.0.0.1 and ::1 alone
	Other int // the same, not allowed at all
	Serve int // TCP and UDP: a session may listen on 127.0.0.1 and ::1

	Root, User outsider // processes outside, of root and of the ordinary user

	Daemon                int    // process
	State, Run, Pins, Pin string // Pin is an object pinned below Pins
	Cgroup                string // of the hierarchy
	Sessions              string // the cgroup of the sessions
	Victims               string // the cgroup of the processes outside

	extra []*os.File // that workers are started with: see inherited

	World string // who is trying: names what must not be shared
	UID   int    // of whoever is trying

	RingSQ, RingCQ [10]uint32 // offsets in the rings that the accomplice has

	Disk          string // root of an ext4 file system: what is in its shared may be read
	TTY           string // a terminal outside
	Memory, Queue int    // numbers of shared memory and of a message queue outside
	Key           int    // serial number of a key outside
}

// outsider is a process outside of all sessions.
type outsider struct {
	PID     int
	FD      int    // of its open secret
	Address uint64 // of its secret in memory
}

// secret is what no session may learn.
const secret = "the secret"

// victim is the process with secrets: in its memory, its environment, and an open file.
func victim() error {
	inMemory := make([]byte, len(secret)) // a constant would be in memory that can't be written
	copy(inMemory, secret)
	file, err := os.OpenFile(filepath.Join(os.Getenv("BAILIFF_ESCAPE_DIR"), "secret", "f"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	// Whatever Yama says, a tracer would be welcome.
	if err := unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0); err != nil {
		return err
	}
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, unix.SIGUSR2)
	fmt.Println(file.Fd(), addressOf(inMemory))
	go func() {
		for n := 1; ; n++ {
			<-caught
			path := signalsOf(os.Getenv("BAILIFF_ESCAPE_DIR"), os.Getpid())
			_ = errors.Join(os.WriteFile(path+"-new", fmt.Append(nil, n), 0o644), os.Rename(path+"-new", path)) // its reader misses it
		}
	}()
	os.Stdin.Read(make([]byte, 1)) // until the test ends
	runtime.KeepAlive(inMemory)
	return nil
}

// signalsOf is the file that says how often a victim got SIGUSR2.
func signalsOf(dir string, pid int) string {
	return filepath.Join(dir, "shared", fmt.Sprint("signals-", pid))
}

// startVictim starts one as a user, in a cgroup.
func startVictim(t *testing.T, f *field, uid int) outsider {
	t.Helper()
	c := exec.Command(f.Binary)
	c.Env = append(os.Environ(), roleVariable+"=victim", "BAILIFF_ESCAPE_DIR="+f.Dir, "SECRET="+secret)
	c.Stderr = os.Stderr
	c.SysProcAttr = as(uid)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	o := outsider{PID: c.Process.Pid}
	must(t, os.WriteFile(signalsOf(f.Dir, o.PID), []byte("0"), 0o666))
	must(t, os.Chmod(signalsOf(f.Dir, o.PID), 0o666))
	_, err = fmt.Sscan(line, &o.FD, &o.Address)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.Victims, "cgroup.procs"), []byte(fmt.Sprint(o.PID)), 0))
	return o
}

// victimOf is the process outside that the worker's user could reach.
func (f *field) victim() outsider {
	if f.UID == 0 {
		return f.Root
	}
	return f.User
}

// own returns a path in the working directory that no other attempt uses.
func (f *field) own(name string) string {
	return filepath.Join(f.Work, f.World+"-"+name)
}

// expand replaces placeholders in texts about the field.
func (f *field) expand(text string) string {
	return strings.NewReplacer("%WORK%", f.Work, "%DIR%", f.Dir, "%PORT%", fmt.Sprint(f.Port), "%OTHER%", fmt.Sprint(f.Other),
		"%SERVE%", fmt.Sprint(f.Serve), "%WORLD%", f.World, "%RUN%", f.Run, "%STATE%", f.State, "%PINS%", f.Pins,
		"%CGROUP%", f.Cgroup, "%SESSIONS%", f.Sessions, "%VICTIMS%", f.Victims, "%DAEMON%", fmt.Sprint(f.Daemon),
		"%VICTIM%", fmt.Sprint(f.victim().PID), "%DISK%", f.Disk, "%TTY%", f.TTY).Replace(text)
}

// in returns the field as a world sees it.
func (f *field) in(w *world) *field {
	own := *f
	own.World, own.UID = w.name(), w.uid
	return &own
}

// environment is what a worker of a world is told.
func (f *field) environment(w *world) []string {
	text, err := json.Marshal(f.in(w))
	if err != nil {
		panic(err)
	}
	return append(os.Environ(), "BAILIFF_ESCAPE_FIELD="+string(text), "BAILIFF_ESCAPE_BINARY="+f.Binary,
		"BAILIFF_ESCAPE_SOCKET="+f.Socket, "BAILIFF_SOCKET="+f.Socket)
}

// newField makes the files, servers and processes of the field around a daemon.
func newField(t *testing.T, h *host) *field {
	t.Helper()
	f := &field{
		Dir: h.dir, Work: filepath.Join(h.dir, "work"), Socket: h.socket, Run: filepath.Dir(h.socket), State: h.state, Pins: h.pins,
		Daemon: h.process.Process.Pid, Cgroup: kerneltest.CgroupRoot(t),
	}
	f.Sessions = filepath.Join(f.Cgroup, h.name)
	f.Victims = filepath.Join(f.Cgroup, h.name+"-victims")
	f.Binary = filepath.Join(f.Work, "escape.test")
	must(t, os.Mkdir(f.Victims, 0o777))
	t.Cleanup(func() { eventually(patience, func() bool { return os.Remove(f.Victims) == nil }) })
	f.files(t)
	f.Port, f.Other = serveInternet(t), serveInternet(t)
	f.Serve = freePort(t)
	pinned, err := filepath.Glob(f.Pins + "/*/maps/*")
	if err != nil || len(pinned) == 0 {
		t.Fatalf("nothing is pinned below %s: %v", f.Pins, err)
	}
	f.Pin = pinned[0]
	f.disk(t)
	serveUnix(t, f)
	f.decoys(t)
	f.channels(t)
	f.Root, f.User = startVictim(t, f, 0), startVictim(t, f, nobody)
	return f
}

// files makes all files anew, open to everybody.
func (f *field) files(t *testing.T) {
	t.Helper()
	script := `set -e; umask 0; cd "$0"; rm -rf shared/link-* shared/directory-* shared/socket-* work/sealed/*; mkdir -p work/sealed work/tree work/mnt secret shared/empty
cp "$1" work/escape.test.new; mv work/escape.test.new work/escape.test; cp /usr/bin/true work/true; cp /usr/bin/true shared/true; cp /usr/bin/cat work/root-cat; mkdir -p work/repo/.git/hooks; cp /lib/x86_64-linux-gnu/libm.so.6 shared/library.so
echo notes > work/notes; echo notes > work/tree/notes
for f in secret/f work/sealed/f work/.env shared/data shared/other; do printf '%s' "$2" > $f; done; chmod -R a+rwX .; chown -R 65534:65534 shared work/sealed work/.env work/repo; chown 0 work/root-cat; chmod 4755 work/root-cat`
	self, err := os.Executable()
	must(t, err)
	if out, err := exec.Command("/bin/bash", "-c", script, f.Dir, self, secret).CombinedOutput(); err != nil {
		t.Fatalf("make the field: %v: %s", err, out)
	}
}

// The policies of the sessions. The loose one is all that a policy can give.
const policies = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: narrow}
spec:
  subject: {spiffeID: narrow}
  presets: [runtime]
  files:
    - {path: %WORK%, allow: [read, write, create, delete, execute]}
    - {path: %WORK%/sealed, deny: [read, write, create, delete, execute]}
    - {path: "%WORK%/**/.env", deny: [read, write, create, delete, execute]}
    - {path: %DIR%/shared, allow: [read]}
    - {path: %DISK%/shared, allow: [read]}
    - {path: %DISK%/work, allow: [read, write]}
    - {path: /usr/bin/true, allow: [read, execute]}
    - {path: /usr/bin/cat, allow: [read, execute]}
    - {path: "%WORK%/**/.git/hooks", deny: [write, create, delete]}
  network:
    - {allow: connect, ip: 127.0.0.1, ports: [%PORT%], protocol: any}
    - {allow: connect, ip: "::1", ports: [%PORT%], protocol: any}
    - {allow: listen, ip: 127.0.0.1, ports: [%SERVE%], protocol: any}
    - {allow: listen, ip: "::1", ports: [%SERVE%], protocol: any}
    - {allow: connect, unix: %DIR%/allowed}
    - {allow: connect, unix: %DIR%/allowed-dgram}
    - {allow: connect, unix: "@allowed-%WORK%"}
    - {allow: connect, unix: "@allowed-%WORK%-dgram"}
---
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: loose}
spec:
  subject: {spiffeID: loose}
  files:
    - {path: /, allow: [read, write, create, delete, execute]}
  network:
    - {allow: connect, cidr: 0.0.0.0/0, protocol: any}
    - {allow: connect, cidr: "::/0", protocol: any}
    - {allow: connect, unix: /}
    - {allow: connect, unix: "@*"}
    - {allow: listen, protocol: any}
`
