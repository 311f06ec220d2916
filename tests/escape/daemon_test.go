// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// turn is an attack on what enforces, by root.
func turn(id, title, hooks, seen string, attack func(f *field) error) technique {
	return technique{id: id, title: title, hooks: hooks, loose: true, root: true, seen: seen, attack: attack}
}

// daemonTechniques turn on what enforces.
func daemonTechniques() []technique {
	file := func(id, title, seen string, path string) technique {
		return turn(id, title, "file_open", seen, func(f *field) error { return peek(f.expand(path)) })
	}
	const builtin = "open builtin "
	return []technique{
		turn("daemon-kill", "a signal to the daemon", "task_kill", "signal privilege process %DAEMON%", func(f *field) error { return unix.Kill(f.Daemon, unix.SIGCONT) }),
		turn("daemon-ptrace", "trace the daemon", "ptrace_access_check", "ptrace privilege process %DAEMON%", func(f *field) error {
			return unix.PtraceSeize(f.Daemon) // and let go of with the thread
		}).launched(),
		turn("daemon-memory", "write the daemon's memory", "ptrace_access_check, file_open", "ptrace privilege process %DAEMON% | open", func(f *field) error {
			return poke(fmt.Sprintf("/proc/%d/mem", f.Daemon))
		}).launched(), // it has more capabilities than the session
		turn("daemon-oom", "have the daemon killed first for memory", "file_open", "open", func(f *field) error {
			return scrawl(fmt.Sprintf("/proc/%d/oom_score_adj", f.Daemon), "0")
		}),
		turn("daemon-limits", "take the daemon's files away (prlimit)", "task_setrlimit, task_prlimit", "schedule privilege process %DAEMON%", func(f *field) error {
			var was unix.Rlimit
			return errors.Join(unix.Prlimit(f.Daemon, unix.RLIMIT_NOFILE, nil, &was), unix.Prlimit(f.Daemon, unix.RLIMIT_NOFILE, &was, nil))
		}),
		turn("daemon-starve", "the lowest priority for the daemon", "task_setnice, task_setscheduler", "schedule privilege process %DAEMON% | capability privilege", func(f *field) error {
			return unix.Setpriority(unix.PRIO_PROCESS, f.Daemon, 0)
		}).launched(),
		file("state-read", "read the daemon's state", builtin+"%STATE%", "%STATE%/policies"),
		turn("state-write", "write the log", "file_open", builtin+"%STATE%", func(f *field) error { return poke(f.State + "/log/events.jsonl") }),
		turn("state-remove", "delete the policies", "path_unlink", "unlink builtin %STATE%", func(f *field) error {
			away := f.State + "/policies"
			was, _ := os.ReadFile(away) // a session may fail to
			return errors.Join(unix.Unlink(away), os.WriteFile(away, was, 0o600))
		}),
		turn("state-rename", "put another state in its place", "path_rename", "rename builtin %STATE%", func(f *field) error {
			return errors.Join(os.Rename(f.State, f.State+"-away"), os.Rename(f.State+"-away", f.State))
		}),
		turn("state-parent", "rename the directory above the state", "path_rename", "rename", func(f *field) error {
			return errors.Join(os.Rename(f.Dir, f.Dir+"-away"), os.Rename(f.Dir+"-away", f.Dir))
		}),
		turn("socket-replace", "put another socket in the daemon's place", "path_rename, path_unlink", "rename builtin %RUN%", func(f *field) error {
			return errors.Join(os.Rename(f.Socket, f.Socket+"-away"), os.Rename(f.Socket+"-away", f.Socket))
		}),
		turn("admin-socket", "use the admin API", "unix_stream_connect, the API itself", "unix-connect builtin %RUN%/admin.sock", func(f *field) error {
			_, err := control.NewAdminClient(f.Socket).ListPolicies(context.Background(), connect.NewRequest(&controlv1.ListPoliciesRequest{}))
			return refusedBy(err)
		}),
		turn("admin-launch", "become another agent by the admin API", "unix_stream_connect, the API itself", "unix-connect builtin %RUN%/admin.sock", func(f *field) error {
			_, err := control.NewAdminClient(f.Socket).Launch(context.Background(), connect.NewRequest(&controlv1.LaunchRequest{Agent: "loose"}))
			return refusedBy(err)
		}).alone(),
		turn("pin-remove", "unpin a program", "path_unlink", "unlink builtin %PINS%", func(f *field) error { return unless(unix.Unlink(f.decoyPin()), unix.ENOENT) }),
		turn("pin-rename", "move the pins away", "path_rename", "rename builtin %PINS%", func(f *field) error {
			return errors.Join(os.Rename(f.Pins, f.Pins+"-away"), os.Rename(f.Pins+"-away", f.Pins))
		}),
		turn("pin-open", "take a pinned object (BPF_OBJ_GET)", "bpf", "bpf privilege | open builtin", func(f *field) error {
			path := text(f.Pin)
			attr := [4]uint64{uint64(path)}
			return call(unix.SYS_BPF, unix.BPF_OBJ_GET, pointer(&attr), unsafe.Sizeof(attr))
		}).launched(),
		turn("bpf-by-number", "take maps, programs and links by their numbers", "bpf", "bpf privilege", func(f *field) error {
			for _, command := range []uintptr{unix.BPF_MAP_GET_FD_BY_ID, unix.BPF_PROG_GET_FD_BY_ID, unix.BPF_LINK_GET_FD_BY_ID} {
				id := uint32(0)
				attr := [4]uint32{}
				next := map[uintptr]uintptr{unix.BPF_MAP_GET_FD_BY_ID: unix.BPF_MAP_GET_NEXT_ID, unix.BPF_PROG_GET_FD_BY_ID: unix.BPF_PROG_GET_NEXT_ID, unix.BPF_LINK_GET_FD_BY_ID: unix.BPF_LINK_GET_NEXT_ID}[command]
				attr[0] = id
				if err := call(unix.SYS_BPF, next, pointer(&attr), unsafe.Sizeof(attr)); err != nil {
					return err
				}
				attr = [4]uint32{attr[1]}
				fd, err := value(unix.SYS_BPF, command, pointer(&attr), unsafe.Sizeof(attr))
				if err != nil {
					return err
				}
				unix.Close(fd)
			}
			return nil
		}).launched(),
	}
}

// cgroupTechniques leave the session's cgroup, or use other ones.
func cgroupTechniques() []technique {
	return []technique{
		turn("cgroup-leave", "leave the session's cgroup", "file_open", "open builtin %CGROUP%", func(f *field) error {
			return scrawl(f.Cgroup+"/cgroup.procs", "0")
		}).alone(),
		turn("cgroup-leave-thread", "leave it with one thread", "file_open", "open builtin %CGROUP%", func(f *field) error {
			return poke(f.Cgroup + "/cgroup.threads")
		}),
		turn("cgroup-born-outside", "have a child born in another cgroup (CLONE_INTO_CGROUP)", "task_alloc", "namespace privilege | cgroup", bornOutside).launched(),
		turn("cgroup-kill", "kill processes outside by their cgroup", "file_open", "open builtin %VICTIMS%/cgroup.kill", func(f *field) error { return poke(f.Victims + "/cgroup.kill") }),
		turn("cgroup-freeze", "freeze processes outside by their cgroup", "file_open", "open builtin %VICTIMS%/cgroup.freeze", func(f *field) error {
			return scrawl(f.Victims+"/cgroup.freeze", "0")
		}),
		turn("cgroup-move", "move a process outside to another cgroup", "file_open", "open builtin %VICTIMS%/cgroup.procs", func(f *field) error {
			return scrawl(f.Victims+"/cgroup.procs", fmt.Sprint(f.victim().PID))
		}),
		turn("cgroup-make", "make a cgroup beside the session's", "path_mkdir", "mkdir builtin %SESSIONS%", func(f *field) error {
			return errors.Join(os.Mkdir(f.Sessions+"/escape", 0o755), os.Remove(f.Sessions+"/escape"))
		}),
		turn("cgroup-controllers", "starve the sessions' cgroup", "file_open", "open builtin %SESSIONS%", func(f *field) error { return poke(f.Sessions + "/cgroup.max.descendants") }),
	}
}

// decoyPin is one more link in the pins' directory, which leads nowhere.
func (f *field) decoyPin() string { return f.Pins + "/decoy" }

// refusedBy gives a refusal of the daemon's the number of a refusal of the kernel's.
func refusedBy(err error) error {
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return fmt.Errorf("%w: %v", unix.EPERM, err)
	}
	return err
}

// starveTechniques leave the daemon nothing to go on with.
func starveTechniques() []technique {
	return []technique{
		{
			id: "daemon-starve-processes", title: "leave the daemon no process to start (fork without end)", hooks: "pids.max of the session's cgroup", loose: true, process: true, basic: true,
			unrecorded: "the kernel says that it is out of processes", attack: func(*field) error { return forkOften(maxProcesses / 2) },
			neighbour: func(*field) error { return forkOften(10) },
		},
	}
}

// forkOften has some processes at once, until it returns.
func forkOften(n int) (err error) {
	var children []int
	for len(children) < n && err == nil {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		switch {
		case errno == unix.EAGAIN:
			err = fmt.Errorf("%w: %d processes: %v", errHeld, len(children), errno)
		case errno != 0:
			err = errno
		case pid == 0:
			for { // nothing of the runtime's: the child has one thread of it
				unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
			}
		default:
			children = append(children, int(pid))
		}
	}
	for _, pid := range children {
		err = errors.Join(err, unix.Kill(pid, unix.SIGKILL))
	}
	for _, pid := range children {
		_, wait := unix.Wait4(pid, nil, 0, nil)
		err = errors.Join(err, wait)
	}
	return err
}

// bornOutside starts a process in the cgroup of the processes outside.
func bornOutside(f *field) error {
	dir, err := unix.Open(f.Victims, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(dir)
	c := exec.Command(f.Work + "/true")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	return c.Run()
}
