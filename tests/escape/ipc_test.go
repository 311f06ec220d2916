// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ipcTechniques use what is neither a file nor a socket.
func ipcTechniques() []technique {
	return []technique{
		{
			id: "shared-memory", title: "attach shared memory of a process outside (shmat)", hooks: "ipc_permission, shm_shmat",
			seen: "ipc privilege", attack: func(f *field) error { return attach(f.Memory) },
			neighbour: func(f *field) error {
				id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
				if err != nil {
					return err
				}
				b, err := unix.SysvShmAttach(id, 0, 0)
				if err == nil {
					err = unix.SysvShmDetach(b)
				}
				_, remove := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
				return errors.Join(err, remove)
			},
		},
		{
			id: "message-queue", title: "read a message queue of a process outside (msgrcv)", hooks: "ipc_permission, msg_queue_msgrcv",
			seen: "ipc privilege", attack: func(f *field) error {
				b := make([]byte, 8+len(secret))
				const copyNoWait = 0o40000 | 0o4000 // MSG_COPY, which leaves the message there
				err := call(unix.SYS_MSGRCV, uintptr(f.Queue), pointer(&b[0]), uintptr(len(secret)), 0, copyNoWait)
				if errors.Is(err, unix.ENOSYS) { // the kernel has no MSG_COPY
					err = call(unix.SYS_MSGRCV, uintptr(f.Queue), pointer(&b[0]), uintptr(len(secret)), 0, 0o4000)
				}
				return errors.Join(err, unlessNil(err, func() error { return holds(b) }))
			},
		},
		{
			id: "posix-queue", title: "open a message queue of a process outside (mq_open)", hooks: "file_open",
			seen: "open | ipc privilege", attack: func(f *field) error {
				fd, err := value(unix.SYS_MQ_OPEN, text("escape-outside"), unix.O_RDWR|unix.O_CLOEXEC)
				if err != nil {
					return err
				}
				return unix.Close(fd)
			},
		},
		{
			id: "set-user-id", title: "gain root's rights by a program (set-user-ID)", hooks: "the launcher (no_new_privs)", user: true, launch: true,
			unrecorded: "the kernel starts the program without those rights", attack: func(f *field) error {
				out, err := exec.Command(f.Work+"/root-cat", "/proc/self/status").CombinedOutput()
				if err == nil && !strings.Contains(string(out), fmt.Sprintf("Uid:\t%d\t0\t", nobody)) {
					err = fmt.Errorf("%w: the program is nobody's still", errHeld)
				}
				return err
			},
			neighbour: func(f *field) error { return exec.Command("/usr/bin/cat", "/proc/self/status").Run() },
		},
		{
			id: "core-limit", title: "have the kernel run its helper for core dumps", hooks: "the launcher (RLIMIT_CORE)", launch: true, user: true,
			unrecorded: "the kernel refuses it by itself", attack: func(f *field) error {
				all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
				return unix.Setrlimit(unix.RLIMIT_CORE, &all)
			},
		},
		{
			id: "daemon-lock", title: "wait for the daemon's lock, so that none can start again", hooks: "file_open, file_lock",
			seen: "open builtin %SESSIONS% | kernel privilege", attack: func(f *field) error {
				fd, err := unix.Open(f.Sessions, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				// The daemon has it now; who may ask may also wait.
				return unless(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			},
			neighbour: func(f *field) error {
				return withFile(f.Work+"/notes", func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
			},
		},
	}
}

func attach(id int) error {
	b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(holds(b[:len(secret)]), unix.SysvShmDetach(b))
}

// channels makes shared memory and queues outside, open to everybody.
func (f *field) channels(t *testing.T) {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666)
	must(t, err)
	b, err := unix.SysvShmAttach(id, 0, 0)
	must(t, err)
	copy(b, secret)
	f.Memory = id
	f.Queue, err = value(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o666)
	must(t, err)
	message := append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, secret...)
	must(t, call(unix.SYS_MSGSND, uintptr(f.Queue), pointer(&message[0]), uintptr(len(secret)), 0))
	queue, err := value(unix.SYS_MQ_OPEN, text("escape-outside"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
	must(t, err)
	must(t, os.Chmod("/dev/mqueue/escape-outside", 0o666))
	t.Cleanup(func() {
		_ = unix.SysvShmDetach(b) // the guest ends soon after
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		_ = call(unix.SYS_MSGCTL, uintptr(f.Queue), unix.IPC_RMID, 0)
		_ = unix.Close(queue)
		os.Remove("/dev/mqueue/escape-outside")
	})
}
