// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalTechniques send signals to processes outside, or change how they run.
func signalTechniques() []technique {
	const seen = "signal privilege process %VICTIM%"
	signal := func(id, title string, send func(pid int) error) technique {
		return technique{
			id: id, title: title, hooks: "task_kill", loose: true, basic: true, seen: seen, attack: func(f *field) error { return send(f.victim().PID) },
			neighbour: func(f *field) error { return withChild(f, send) },
		}
	}
	change := func(id, title, hooks string, do func(pid int) error) technique {
		return technique{
			id: id, title: title, hooks: hooks, loose: true, launch: true, seen: "schedule privilege process %VICTIM% | ptrace privilege process %VICTIM%",
			attack: func(f *field) error { return do(f.victim().PID) }, neighbour: func(f *field) error { return withChild(f, do) },
		}
	}
	return []technique{
		signal("kill", "a signal (kill)", func(pid int) error { return unix.Kill(pid, unix.SIGCONT) }),
		signal("kill-nothing", "ask whether it is there (signal 0)", func(pid int) error { return unix.Kill(pid, 0) }),
		signal("tgkill", "a signal to a thread (tgkill)", func(pid int) error { return unix.Tgkill(pid, pid, unix.SIGCONT) }),
		signal("pidfd-signal", "a signal by pidfd", func(pid int) error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			defer unix.Close(fd)
			return unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
		}),
		signal("sigqueue", "a signal with a value (rt_sigqueueinfo)", func(pid int) error {
			info := [32]int32{0: int32(unix.SIGCONT), 2: -1}
			return call(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(unix.SIGCONT), pointer(&info))
		}),
		{
			id: "kill-all", title: "a signal to everybody (kill -1)", hooks: "task_kill", loose: true, basic: true, process: true, user: true, seen: seen,
			attack: func(f *field) error { return f.reaches(func() error { return unix.Kill(-1, unix.SIGUSR2) }) },
		},
		{
			id: "signal-owner", title: "have the kernel send it, for input on a file (F_SETOWN, F_SETSIG)", hooks: "file_fcntl, file_send_sigiotask", loose: true,
			seen: "signal privilege", attack: func(f *field) error { return f.reaches(func() error { return signalByInput(f.victim().PID) }) },
			neighbour: func(f *field) error { return signalByInput(unix.Getpid()) },
		},
		{
			id: "signal-owner-ioctl", title: "the same by ioctl (FIOSETOWN)", hooks: "file_ioctl, file_send_sigiotask", loose: true,
			seen: "signal privilege", attack: func(f *field) error { return f.reaches(func() error { return signalBySocket(f.victim().PID, 0x8901) }) },
			neighbour: func(f *field) error { return signalByInput(unix.Getpid()) },
		},
		{
			id: "signal-owner-socket", title: "the same by another ioctl (SIOCSPGRP)", hooks: "file_ioctl, file_send_sigiotask", loose: true,
			seen: "signal privilege", attack: func(f *field) error { return f.reaches(func() error { return signalBySocket(f.victim().PID, 0x8902) }) },
			neighbour: func(f *field) error { return signalByInput(unix.Getpid()) },
		},
		change("nice", "its priority (setpriority)", "task_setnice", func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 0) }),
		change("scheduler", "its scheduler (sched_setscheduler)", "task_setscheduler", func(pid int) error {
			var p int32
			return call(unix.SYS_SCHED_SETSCHEDULER, uintptr(pid), 0, pointer(&p))
		}),
		change("affinity", "its processors (sched_setaffinity)", "task_setscheduler", func(pid int) error {
			var set unix.CPUSet
			set.Set(0)
			set.Set(1)
			return unix.SchedSetaffinity(pid, &set)
		}),
		change("io-priority", "its I/O priority (ioprio_set)", "task_setioprio", func(pid int) error { return call(unix.SYS_IOPRIO_SET, 1, uintptr(pid), 2<<13|4) }),
		change("limits", "its limits (prlimit)", "task_setrlimit, task_prlimit", func(pid int) error {
			var was unix.Rlimit
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
				return err
			}
			return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil)
		}),
		change("migrate", "where its memory is (migrate_pages)", "ptrace_access_check, task_movememory", func(pid int) error {
			nodes := uint64(1)
			return call(unix.SYS_MIGRATE_PAGES, uintptr(pid), 64, pointer(&nodes), pointer(&nodes))
		}).launched(),
		{
			id: "oom-score", title: "make it the first to be killed for memory (oom_score_adj)", hooks: "file_open", loose: true, seen: "open",
			attack:    func(f *field) error { return scrawl(fmt.Sprintf("/proc/%d/oom_score_adj", f.victim().PID), "0") },
			neighbour: func(f *field) error { _, err := os.ReadFile("/proc/self/oom_score_adj"); return err },
		},
	}
}

// withChild does it to a process of the session's own.
func withChild(f *field, do func(pid int) error) error {
	c := exec.Command(f.Binary)
	c.Env = append(os.Environ(), roleVariable+"=work")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Wait()
	defer c.Process.Kill()
	return do(c.Process.Pid)
}

// reaches tells whether a signal got to the process outside, whatever the calls said.
func (f *field) reaches(send func() error) error {
	count := func() string {
		b, _ := os.ReadFile(signalsOf(f.Dir, f.victim().PID))
		return string(b)
	}
	before := count()
	if before == "" {
		return errors.New("before the attack: nobody counts signals")
	}
	err := send()
	for range 20 {
		if count() != before {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.Join(err, fmt.Errorf("%w: the signal did not arrive", errHeld))
}

// signalByInput makes a process the owner of a pipe, and writes to the pipe.
func signalByInput(pid int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return ownAndWrite(p[0], p[1], func() error {
		_, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETOWN, pid)
		return err
	})
}

// signalBySocket does it with a pair of sockets and an ioctl.
func signalBySocket(pid int, ioctl uintptr) error {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	owner := int32(pid)
	return ownAndWrite(p[0], p[1], func() error { return call(unix.SYS_IOCTL, uintptr(p[0]), ioctl, uintptr(unsafe.Pointer(&owner))) })
}

func ownAndWrite(in, out int, own func() error) error {
	if err := own(); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(in), unix.F_SETSIG, int(unix.SIGUSR2)); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(in), unix.F_SETFL, unix.O_ASYNC|unix.O_RDONLY); err != nil {
		return err
	}
	_, err := unix.Write(out, []byte("x"))
	return err
}
