// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// order tells a worker what to try.
type order struct {
	ID        string
	Neighbour bool
}

// answer is how it went.
type answer struct {
	Done       bool          // it succeeded
	Errno      syscall.Errno // how it failed, if that has a number
	Held       bool          // it failed in a way that only being denied explains
	Stuck      bool          // it took too long, and was given up
	Text       string        // the failure in words
	Began, End uint64        // boot time, ns
}

// errHeld is the failure of an attack that no call refused and that came to
// nothing: what was sent did not arrive.
var errHeld = errors.New("it had no effect")

// patience is how long one attempt may take in a guest without KVM.
const patience = 20 * time.Second

// patience is more outside of sessions, where attacks on the kernel succeed: to
// patch all its code takes such a guest half a minute.
func (f *field) patience() time.Duration {
	if strings.HasPrefix(f.World, "free-") {
		return 4 * patience
	}
	return patience
}

// join enters a session as `bailiff run` does, but keeps whatever it has.
func join() error {
	agent, task, socket := os.Getenv("BAILIFF_ESCAPE_AGENT"), os.Getenv("BAILIFF_ESCAPE_TASK"), os.Getenv("BAILIFF_ESCAPE_SOCKET")
	conn, err := net.Dial("unix", socket) // as root, before the change of user
	if err != nil {
		return err
	}
	if err := assume(os.Getenv("BAILIFF_ESCAPE_USER")); err != nil {
		return err
	}
	unused := make(chan net.Conn, 1)
	unused <- conn
	client := controlv1connect.NewAdminServiceClient(&http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return <-unused, nil },
	}}, "http://bailiffd")
	_, err = client.Launch(context.Background(), connect.NewRequest(&controlv1.LaunchRequest{Agent: agent, Task: task}))
	if err != nil {
		return err
	}
	// The exec leaves behind the threads that were there before the label.
	file := os.Getenv("BAILIFF_ESCAPE_BINARY")
	if err := os.Setenv(roleVariable, "work"); err != nil {
		return err
	}
	return syscall.Exec(file, []string{file}, os.Environ())
}

// assume becomes the user with a number; "" and "0" change nothing.
func assume(user string) error {
	uid, _ := strconv.Atoi(user)
	if uid == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(uid, uid, uid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

// work answers orders until there are no more.
func work() error {
	signal.Ignore(unix.SIGUSR2) // one that was meant for everybody
	f, err := loadField()
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Done: true}); err != nil { // it is there
		return err
	}
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(f.carryOut(o)); err != nil {
			return err
		}
	}
}

// carryOut tries a technique, on a thread or in a process of its own.
func (f *field) carryOut(o order) (a answer) {
	t, ok := all()[o.ID]
	began := bootTime()
	if o.ID == floodID || o.ID == quietID {
		a = toAnswer(&t, f.deny(o.ID))
		a.Began, a.End = began, bootTime()
		return a
	}
	if !ok {
		return answer{Text: "no such technique"}
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and with it what was done to it
		if t.process || t.clone != 0 {
			done <- f.spawn(&t, o)
			return
		}
		done <- f.perform(&t, o)
	}()
	select {
	case a = <-done:
	case <-time.After(f.patience()):
		a = answer{Stuck: true, Text: "it never ended"}
	}
	a.Began, a.End = began, bootTime()
	return a
}

// perform does it on this thread.
func (f *field) perform(t *technique, o order) answer {
	do := t.attack
	if o.Neighbour {
		do = t.neighbour
	}
	return toAnswer(t, do(f))
}

func toAnswer(t *technique, err error) answer {
	if err == nil {
		return answer{Done: true}
	}
	a := answer{Text: err.Error()}
	errors.As(err, &a.Errno)
	a.Held = errors.Is(err, errHeld) || slices.ContainsFunc(t.errors, func(e error) bool { return errors.Is(err, e) })
	return a
}

// refused tells whether a failure is one of being denied.
func (a *answer) refused() bool {
	switch a.Errno {
	case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT:
		return true
	}
	return a.Held
}

// spawn does it in a new process, made with the technique's flags.
func (f *field) spawn(t *technique, o order) answer {
	text, err := json.Marshal(o)
	if err != nil {
		return answer{Text: err.Error()}
	}
	c := exec.Command(f.Binary)
	c.Env = append(os.Environ(), roleVariable+"=try", "BAILIFF_ESCAPE_ORDER="+string(text))
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !o.Neighbour {
		c.SysProcAttr.Cloneflags = uintptr(t.clone)
		if t.clone&unix.CLONE_NEWUSER != 0 {
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Start(); err != nil {
		return toAnswer(t, err)
	}
	var stuck atomic.Bool
	timer := time.AfterFunc(f.patience()*3/4, func() { stuck.Store(true); c.Process.Kill() })
	defer timer.Stop()
	err = c.Wait()
	if err == nil && out.Len() == 0 {
		return answer{Done: true} // it became another program, which ended well
	}
	var a answer
	if json.Unmarshal(out.Bytes(), &a) != nil {
		a = toAnswer(t, fmt.Errorf("its process: %w", err))
		if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			a.Text, a.Stuck = "its process was killed by "+status.Signal().String(), stuck.Load()
		}
	}
	return a
}

// try is the process of spawn.
func try() error {
	f, err := loadField()
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal([]byte(os.Getenv("BAILIFF_ESCAPE_ORDER")), &o); err != nil {
		return err
	}
	t := all()[o.ID]
	return json.NewEncoder(os.Stdout).Encode(f.perform(&t, o))
}

func bootTime() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// loadField reads what the attacks aim at. They wreck what they reach, so
// nothing but a guest will do.
func loadField() (*field, error) {
	if !kerneltest.InVM() {
		return nil, errors.New("this is no guest of scripts/vm")
	}
	f := &field{}
	if err := json.Unmarshal([]byte(os.Getenv("BAILIFF_ESCAPE_FIELD")), f); err != nil {
		return nil, fmt.Errorf("read the field: %w", err)
	}
	return f, nil
}

// crew is one worker, from the test's side.
type crew struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end io.Closer

	dead bool
}

// hire starts a worker and waits until it is there.
func hire(c *exec.Cmd) (*crew, error) {
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	w := &crew{cmd: c, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out)), end: in}
	var hello answer
	if err := w.out.Decode(&hello); err != nil || !hello.Done {
		w.dismiss()
		return nil, fmt.Errorf("start a worker: %v: %+v", err, hello)
	}
	return w, nil
}

// do has the worker try something; an error means that it is no more.
func (w *crew) do(o order) (a answer, err error) {
	began := bootTime()
	if err := w.in.Encode(o); err != nil {
		return answer{Began: began, End: bootTime()}, err
	}
	if err := w.out.Decode(&a); err != nil {
		return answer{Began: began, End: bootTime(), Text: "the worker died of it"}, err
	}
	return a, nil
}

func (w *crew) dismiss() {
	w.end.Close()
	timer := time.AfterFunc(patience, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	_ = w.cmd.Wait() // killed sessions end in many ways
}
