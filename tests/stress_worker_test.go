// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// stressVariable makes the test binary a worker of the stress run: what it holds
// is the worker's workload, as JSON.
const stressVariable = "BAILIFF_STRESS_WORKER"

// workload is what a session does over and over, and knows the verdicts of.
type workload struct {
	Own, Others, Secret            string // directories: its own, another session's, nobody's
	Allowed, Denied, Toggled       int    // TCP ports on loopback; the last one is now the one, now the other
	Pause                          time.Duration
	Rounds, Forks, Opens, Connects int
	ToggledAllowed, ToggledDenied  int
	Wrong                          int
	Examples                       []string
}

// stressWork runs a workload until standard input ends, and tells of it on standard output.
func stressWork(text string) int {
	w := &workload{}
	if err := json.Unmarshal([]byte(text), w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	stop := make(chan struct{})
	go func() {
		for buffer := make([]byte, 1); ; {
			if n, err := os.Stdin.Read(buffer); n == 0 || err != nil {
				close(stop)
				return
			}
		}
	}()
	for {
		w.round()
		select {
		case <-stop:
			if err := json.NewEncoder(os.Stdout).Encode(w); err != nil {
				return 1
			}
			return 0
		case <-time.After(w.Pause):
		}
	}
}

// round does each act once, and checks its verdict.
func (w *workload) round() {
	w.Rounds++
	file := filepath.Join(w.Own, "file"+strconv.Itoa(w.Rounds%8))
	w.open(file, os.O_RDWR|os.O_CREATE, true)
	w.open(filepath.Join(w.Own, "kept"), os.O_RDONLY, true)
	w.open(filepath.Join(w.Others, "kept"), os.O_RDONLY, false)
	w.open(filepath.Join(w.Secret, "kept"), os.O_RDONLY, false)
	w.open(filepath.Join(w.Secret, "kept"), os.O_WRONLY, false)
	w.open(filepath.Join(w.Secret, "new"), os.O_WRONLY|os.O_CREATE, false)
	w.check("remove "+file, os.Remove(file), true)
	w.connect(w.Allowed, true)
	w.connect(w.Denied, false)
	if err := dial(w.Toggled); err == nil {
		w.ToggledAllowed++
	} else if denied(err) {
		w.ToggledDenied++
	} else {
		w.wrong(fmt.Sprintf("connect to the toggled port: %v", err))
	}
	w.fork()
}

func (w *workload) open(path string, flags int, allowed bool) {
	w.Opens++
	f, err := os.OpenFile(path, flags, 0o644)
	if err == nil {
		f.Close()
	}
	w.check("open "+path, err, allowed)
}

func (w *workload) connect(port int, allowed bool) {
	w.Connects++
	w.check("connect to "+strconv.Itoa(port), dial(port), allowed)
}

func dial(port int) error {
	c, err := net.DialTimeout("tcp4", "127.0.0.1:"+strconv.Itoa(port), time.Minute)
	if err != nil {
		return err
	}
	return c.Close()
}

func denied(err error) bool { return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) }

func (w *workload) check(what string, err error, allowed bool) {
	switch {
	case allowed && err == nil, !allowed && denied(err):
	case err == nil:
		w.wrong(what + " was allowed")
	default:
		w.wrong(fmt.Sprintf("%s: %v, allowed: %v", what, err, allowed))
	}
}

func (w *workload) wrong(what string) {
	if w.Wrong++; len(w.Examples) < 5 {
		w.Examples = append(w.Examples, time.Now().Format("15:04:05.000 ")+what)
	}
}

// fork has a shell, a child of its own, find the same verdicts.
func (w *workload) fork() {
	w.Forks++
	script := fmt.Sprintf("exec 2>&-; read x <%s/kept || exit 3; read x <%s/kept && exit 4; (read x <%s/kept) && exit 5; exit 0", w.Own, w.Secret, w.Others)
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Files: []uintptr{0, 1, 1}, Env: []string{}})
	if err != nil {
		w.wrong(fmt.Sprintf("start a shell: %v", err))
		return
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		w.wrong(fmt.Sprintf("the shell: %v, exit status %d, signal %d", err, status.ExitStatus(), status.Signal()))
	}
}
