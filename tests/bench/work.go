// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// work is the life of a worker: jobs from r, answers to w.
func work(r io.Reader, w io.Writer) int {
	runtime.LockOSThread()
	devNull, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil && unix.Gettid() != os.Getpid() {
		err = errors.New("the first goroutine is not on the first thread: run it again")
	}
	in, out := json.NewDecoder(r), json.NewEncoder(w)
	for {
		var j job
		if in.Decode(&j) != nil {
			return 0
		}
		var a answer
		if err == nil {
			a = timed(&j, uintptr(devNull))
		} else {
			a.Err = err.Error()
		}
		if out.Encode(a) != nil {
			return 0
		}
	}
}

// batches are how many parts of a job are timed on their own.
const batches = 100

// timed does a job, prepared before its time starts. What it took once is the
// median over batches, which other people's use of the machine moves least.
func timed(j *job, devNull uintptr) answer {
	do, err := prepare(j, devNull)
	if err != nil {
		return answer{Err: j.Do + ": " + err.Error()}
	}
	var taken []float64
	size := (j.N + batches - 1) / batches
	for i := 0; i < j.N; i += size {
		end := min(i+size, j.N)
		began, err := clock(j.CPU)
		if err != nil {
			return answer{Err: err.Error()}
		}
		for k := i; k < end; k++ {
			if err := do(k); err != nil {
				return answer{Err: fmt.Sprintf("%s: %v", j.Do, err)}
			}
		}
		ended, err := clock(j.CPU)
		if err != nil {
			return answer{Err: err.Error()}
		}
		taken = append(taken, float64(ended-began)/float64(end-i))
	}
	slices.Sort(taken)
	return answer{NS: middle(taken)}
}

// clock reads the monotonic clock, or the time that this process and its dead
// children ran, in nanoseconds.
func clock(cpu bool) (int64, error) {
	if !cpu {
		var now unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		return now.Nano(), err
	}
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, err
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return sum, nil
}

// prepare returns the function that does the job once more.
func prepare(j *job, devNull uintptr) (func(i int) error, error) {
	switch j.Do {
	case "nothing":
		return func(int) error { return nil }, nil
	case "restrict":
		return func(int) error { return nil }, restrict(j.Grants)
	case "open":
		name, err := unix.BytePtrFromString(j.Path)
		return func(int) error { return openClose(name) }, err
	case "each":
		names, err := namesBelow(j.Path, j.N)
		return func(i int) error { return openClose(names[i]) }, err
	case "run":
		return func(int) error { return runCommand(j, devNull) }, nil
	case "request":
		return func(int) error { return request(j) }, nil
	case "send":
		return func(int) error { return send(j) }, nil
	}
	return nil, errors.New("no such job")
}

// eachFile is the file in the i-th directory below a job's path.
func eachFile(dir string, i int) string {
	n := strconv.Itoa(i)
	return dir + "/d" + n + "/f" + n
}

func namesBelow(dir string, n int) ([]*byte, error) {
	names := make([]*byte, n)
	for i := range names {
		var err error
		if names[i], err = unix.BytePtrFromString(eachFile(dir, i)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// openClose makes the two system calls and nothing else: no scheduler.
func openClose(name *byte) error {
	at := unix.AT_FDCWD
	fd, _, errno := unix.RawSyscall(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)), unix.O_RDONLY)
	if errno != 0 {
		return &os.PathError{Op: "open", Path: unix.BytePtrToString(name), Err: errno}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func runCommand(j *job, devNull uintptr) error {
	pid, err := syscall.ForkExec(j.Command[0], j.Command, &syscall.ProcAttr{
		Dir: j.Path, Env: j.Environ, Files: []uintptr{devNull, devNull, devNull},
	})
	if err != nil {
		return &os.PathError{Op: "exec", Path: j.Command[0], Err: err}
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("%q: exit status %d", j.Command, status.ExitStatus())
	}
	return nil
}
