// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// workerCommand as the first argument makes the test binary a worker in a session:
//
//	tests.test kills-worker ADDRESSES DIRECTORY FILE PACE    until its input ends
//	tests.test kills-worker ADDRESSES once INDEX             one act
const workerCommand = "kills-worker"

func TestMain(m *testing.M) {
	if len(os.Args) >= 5 && os.Args[1] == workerCommand {
		os.Exit(work(os.Args[2:]))
	}
	if text := os.Getenv(stressVariable); text != "" {
		os.Exit(stressWork(text))
	}
	// Under nohup, what is started here would ignore it too: what is caught it does not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	os.Exit(m.Run())
}

// worked is what a worker did, as it says in the end.
type worked struct {
	Connects int      // denied ones, to the addresses 0 to Connects-1 of its own
	Creates  int      // denied ones, of the files 0 to Creates-1
	Wrong    []string // what was allowed and should not have been, or the other way round
}

// workerAddress is one that no policy allows; no two workers have the same, and
// none has one twice.
func workerAddress(second, index int) [4]byte {
	return [4]byte{127, byte(second + index>>16), byte(index >> 8), byte(index)}
}

// workerPort is that of all denied acts. At allowedPort of 127.0.0.1 nobody listens,
// and everybody may find out.
const (
	workerPort  = 9
	allowedPort = 7
)

// workerReady is the first line that a worker says.
const workerReady = "working"

// pace is how long a worker rests between two rounds. A guest without KVM is slow,
// the daemon in it most of all.
func pace() time.Duration {
	if kerneltest.InVM() {
		return 30 * time.Millisecond
	}
	return 3 * time.Millisecond
}

// maxIndex bounds how many addresses a worker has.
const maxIndex = 1 << 16

func work(args []string) int {
	second, err := strconv.Atoi(args[0])
	w := &worked{}
	if args[1] == "once" {
		var index int
		if index, err = strconv.Atoi(args[2]); err == nil {
			w.denied(second, index)
		}
	} else if err == nil {
		var pace time.Duration
		if pace, err = time.ParseDuration(args[3]); err == nil {
			w.loop(second, args[1], args[2], pace)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := json.NewEncoder(os.Stdout).Encode(w); err != nil || len(w.Wrong) > 0 {
		return 1
	}
	return 0
}

func (w *worked) loop(second int, directory, file string, pace time.Duration) {
	fmt.Println(workerReady)
	var stop atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for i := 0; !stop.Load() && w.Connects < maxIndex; i++ {
		if i%40 == 39 {
			w.fork(second)
		} else {
			w.denied(second, w.Connects)
		}
		w.Connects++
		if err := connect([4]byte{127, 0, 0, 1}, allowedPort); !errors.Is(err, unix.ECONNREFUSED) {
			w.wrong("connect to the allowed port: %v", err)
		}
		if _, err := os.ReadFile(file); err != nil {
			w.wrong("read: %v", err)
		}
		path := filepath.Join(directory, strconv.Itoa(w.Creates))
		if f, err := os.Create(path); !isDenied(err) {
			w.wrong("create %s: %v", path, err)
			f.Close()
		}
		w.Creates++
		time.Sleep(pace)
	}
}

// fork has a child do the next act.
func (w *worked) fork(second int) {
	out, err := exec.Command(os.Args[0], workerCommand, strconv.Itoa(second), "once", strconv.Itoa(w.Connects)).CombinedOutput()
	if err != nil {
		w.wrong("a child: %v: %s", err, out)
	}
}

func (w *worked) denied(second, index int) {
	if err := connect(workerAddress(second, index), workerPort); !isDenied(err) {
		w.wrong("connect to address %d: %v", index, err)
	}
}

func (w *worked) wrong(format string, args ...any) {
	if len(w.Wrong) < 20 {
		w.Wrong = append(w.Wrong, time.Now().Format(time.StampMicro)+" "+fmt.Sprintf(format, args...))
	}
}

func isDenied(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

func connect(address [4]byte, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: address, Port: port})
}
