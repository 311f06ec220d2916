// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// workerVariable makes the program a worker.
const workerVariable = "BENCH_WORKER"

// job is what a worker is told to do and to time.
type job struct {
	Do      string // a name in work
	Path    string
	N       int // how often
	Command []string
	Environ []string
	Address [4]byte
	Port    int
	Proxy   int // port of a proxy to go through; 0: none
	Grants  []grant
	CPU     bool // time what the worker and its children ran, not what they waited
}

// answer is what a worker says of a job.
type answer struct {
	NS  float64 // doing it once took
	Err string
}

// worker is a process that does one job at a time. All of it happens in the
// thread group leader, since that is the thread that a label is put on.
type worker struct {
	name    string
	command *exec.Cmd
	pidfd   int
	in      *json.Encoder
	out     *json.Decoder
}

func startWorker(name string) (*worker, error) {
	w := &worker{name: name, pidfd: -1}
	w.command = exec.Command("/proc/self/exe")
	// Garbage would be collected by other threads, which have no label, in the measured time.
	w.command.Env = append(os.Environ(), workerVariable+"="+name, "GOGC=off", "GOMAXPROCS=1")
	w.command.Stderr = os.Stderr
	w.command.SysProcAttr = &syscall.SysProcAttr{PidFD: &w.pidfd, Pdeathsig: syscall.SIGKILL}
	in, err := w.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := w.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in, w.out = json.NewEncoder(in), json.NewDecoder(out)
	if err := w.command.Start(); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	_, err = w.do(job{Do: "nothing", N: 1})
	return w, err
}

// do has the worker do a job and returns the nanoseconds that doing it once took.
func (w *worker) do(j job) (float64, error) {
	if err := w.in.Encode(j); err != nil {
		return 0, fmt.Errorf("ask worker %s: %w", w.name, err)
	}
	var a answer
	if err := w.out.Decode(&a); err != nil {
		return 0, fmt.Errorf("worker %s: %w", w.name, err)
	}
	if a.Err != "" {
		return 0, fmt.Errorf("worker %s: %s", w.name, a.Err)
	}
	return a.NS, nil
}

func (w *worker) stop() error {
	if err := w.command.Process.Kill(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := w.command.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return unix.Close(w.pidfd)
}

// program returns the path of a command, for workers that may not search.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: scripts/deps programs installs it", err)
	}
	return path, nil
}

// fields splits a command line and finds its program.
func fields(line string) ([]string, error) {
	words := strings.Fields(line)
	path, err := program(words[0])
	words[0] = path
	return words, err
}
