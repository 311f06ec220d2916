// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// privilege is how a mount is told of.
const privilege = "mount privilege | namespace privilege | capability privilege | open outside"

// mountTechniques change what paths mean.
func mountTechniques() []technique {
	mount := func(id, title, hooks string, attack func(f *field) error) technique {
		return technique{id: id, title: title, hooks: hooks + ", capable", loose: true, root: true, basic: true, launch: true, seen: privilege, attack: attack}
	}
	open := func(directory int) error {
		fd, err := unix.Openat(directory, "f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return []technique{
		mount("mount", "mount a file system", "sb_mount", func(f *field) error {
			return errors.Join(unix.Mount("none", f.Work+"/mnt", "tmpfs", 0, ""), unix.Unmount(f.Work+"/mnt", unix.MNT_DETACH))
		}),
		mount("mount-bind", "bind one directory over another", "sb_mount", func(f *field) error {
			return errors.Join(unix.Mount(f.Dir+"/secret", f.Work+"/mnt", "", unix.MS_BIND, ""), unix.Unmount(f.Work+"/mnt", unix.MNT_DETACH))
		}),
		mount("mount-overlay", "lay a file system over a hidden directory", "sb_mount", func(f *field) error {
			return errors.Join(unix.Mount("none", f.Work+"/mnt", "overlay", 0, "lowerdir="+f.Dir+"/secret:"+f.Dir+"/shared"), unix.Unmount(f.Work+"/mnt", unix.MNT_DETACH))
		}),
		mount("mount-remount", "remount", "sb_remount", func(f *field) error {
			return unix.Mount("", f.Disk, "", unix.MS_REMOUNT, "")
		}),
		mount("mount-propagation", "change what is passed on between mounts", "sb_mount", func(f *field) error {
			return unix.Mount("", f.Disk, "", unix.MS_SHARED, "")
		}),
		mount("unmount", "unmount", "sb_umount", func(f *field) error {
			return errors.Join(unix.Unmount("/dev/mqueue", unix.MNT_DETACH), unix.Mount("mqueue", "/dev/mqueue", "mqueue", 0, ""))
		}),
		mount("open-tree", "a clone of a directory that hangs nowhere (open_tree)", "capable", func(f *field) error {
			fd, err := unix.OpenTree(unix.AT_FDCWD, f.Dir+"/secret", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return open(fd)
		}),
		mount("move-mount", "hang a mount somewhere (move_mount)", "move_mount", func(f *field) error {
			fd, err := unix.OpenTree(unix.AT_FDCWD, f.Dir+"/secret", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return errors.Join(unix.MoveMount(fd, "", unix.AT_FDCWD, f.Work+"/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH), unix.Unmount(f.Work+"/mnt", unix.MNT_DETACH))
		}),
		mount("fsopen", "a file system that is mounted nowhere (fsopen, fsmount)", "sb_kern_mount", func(f *field) error {
			fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
			if err != nil {
				return err
			}
			defer unix.Close(fs)
			if err := call(unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_CMD_CREATE, 0, 0, 0); err != nil {
				return err
			}
			fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		mount("mount-setattr", "change a mount's attributes (mount_setattr)", "capable", func(f *field) error {
			return unix.MountSetattr(unix.AT_FDCWD, f.Disk, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
		}),
	}
}

// rootTechniques begin paths elsewhere, or do without them.
func rootTechniques() []technique {
	return []technique{
		{
			id: "pivot-root", title: "another root directory (pivot_root)", hooks: "capable, sb_pivotroot", loose: true, root: true, basic: true, launch: true, process: true,
			seen: privilege, attack: func(f *field) error {
				err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
					unix.Mount(f.Work, f.Work, "", unix.MS_BIND, ""))
				if err != nil {
					return err
				}
				return unix.PivotRoot(f.Work, f.Work+"/mnt")
			},
		},
		{
			id: "chroot", title: "another root directory (chroot)", hooks: "capable, path_chroot, file_open", root: true, basic: true, launch: true, process: true,
			seen: "capability privilege | chroot privilege | mount privilege | open default %DIR%/secret/f", attack: func(f *field) error {
				return errors.Join(unix.Chroot(f.Dir+"/secret"), steal("/f"))
			},
		},
		{
			id: "handle", title: "open a file by its number (open_by_handle_at)", hooks: "capable, file_open", root: true, launch: true,
			seen: "open default %DIR%/secret/f | capability privilege", attack: func(f *field) error { return byHandle(f.Dir+"/secret/f", f.Work) },
		},
		{
			id: "handle-cold", title: "open a file by its number that is not cached", hooks: "capable, file_open", root: true, launch: true,
			seen: "open default | open outside | capability privilege", attack: func(f *field) error {
				unix.Sync()
				_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // outside of sessions alone
				return byHandle(f.Disk+"/secret/f", f.Disk+"/shared")
			},
		},
	}
}

// byHandle opens a file by its number on the file system of a directory.
func byHandle(path, near string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	dir, err := unix.Open(near, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(dir)
	fd, err := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return stealFrom(fd)
}

// namespaceTechniques make or enter namespaces.
func namespaceTechniques() []technique {
	fresh := func(id, title string, flag int) technique {
		return technique{
			id: id, title: title, hooks: "capable", loose: true, root: true, basic: true, launch: true, process: true, seen: privilege,
			attack: func(f *field) error { return unix.Unshare(flag) },
		}
	}
	enter := func(id, title, name string) technique {
		return technique{
			id: id, title: title, hooks: "ptrace_access_check, capable", loose: true, root: true, basic: true, launch: true, process: true,
			seen: privilege + " | ptrace privilege process %VICTIM%", attack: func(f *field) error {
				fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", f.victim().PID, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(fd, 0))
			},
		}
	}
	return []technique{
		{
			id: "namespace-user", title: "a user namespace, with all capabilities in it", hooks: "userns_create", loose: true, basic: true, launch: true,
			clone: unix.CLONE_NEWUSER, seen: privilege, attack: func(f *field) error { return nil },
			neighbour: func(f *field) error { return nil },
		},
		{
			id: "namespace-user-mount", title: "user and mount namespace, and a mount in them", hooks: "userns_create, sb_mount", loose: true, basic: true, launch: true,
			clone: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, seen: privilege, attack: func(f *field) error {
				return unix.Mount(f.Dir+"/secret", f.Work+"/mnt", "", unix.MS_BIND, "")
			},
		},
		fresh("namespace-mount", "a mount namespace", unix.CLONE_NEWNS),
		fresh("namespace-net", "a network namespace", unix.CLONE_NEWNET),
		fresh("namespace-pid", "a PID namespace", unix.CLONE_NEWPID),
		fresh("namespace-cgroup", "a cgroup namespace", unix.CLONE_NEWCGROUP),
		fresh("namespace-ipc", "an IPC namespace", unix.CLONE_NEWIPC),
		fresh("namespace-uts", "a UTS namespace", unix.CLONE_NEWUTS),
		fresh("namespace-time", "a time namespace", unix.CLONE_NEWTIME),
		enter("setns-mount", "enter the mount namespace of a process outside", "mnt"),
		enter("setns-net", "enter the network namespace of a process outside", "net"),
		{
			id: "setns-pidfd", title: "enter namespaces by a pidfd", hooks: "ptrace_access_check, capable", loose: true, root: true, basic: true, launch: true, process: true,
			seen: privilege + " | ptrace privilege process %VICTIM%", attack: func(f *field) error {
				fd, err := unix.PidfdOpen(f.victim().PID, 0)
				if err != nil {
					return fmt.Errorf("before the attack: %v", err)
				}
				defer unix.Close(fd)
				return errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(fd, unix.CLONE_NEWNS))
			},
		},
	}
}

// taskTechniques act on processes outside.
func taskTechniques() []technique {
	act := func(id, title, hooks, seen string, attack func(o outsider) error) technique {
		return technique{
			id: id, title: title, hooks: hooks, loose: true, launch: true, seen: seen, attack: func(f *field) error { return attack(f.victim()) },
		}
	}
	const traced = "ptrace privilege process %VICTIM% | open"
	read := func(id, title, file string) technique {
		return act(id, title, "ptrace_access_check, file_open", traced, func(o outsider) error { return peek(fmt.Sprintf("/proc/%d/%s", o.PID, file)) })
	}
	return []technique{
		act("ptrace", "trace it", "ptrace_access_check", traced, func(o outsider) error {
			return unix.PtraceSeize(o.PID) // and let go of with the thread
		}),
		act("vm-read", "read its memory (process_vm_readv)", "ptrace_access_check", traced, func(o outsider) error {
			b := make([]byte, len(secret))
			_, err := unix.ProcessVMReadv(o.PID, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, []unix.RemoteIovec{{Base: uintptr(o.Address), Len: len(b)}}, 0)
			return errors.Join(err, unlessNil(err, func() error { return holds(b) }))
		}),
		act("vm-write", "write its memory (process_vm_writev)", "ptrace_access_check", traced, func(o outsider) error {
			b := []byte(secret)
			_, err := unix.ProcessVMWritev(o.PID, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, []unix.RemoteIovec{{Base: uintptr(o.Address), Len: len(b)}}, 0)
			return err
		}),
		read("proc-mem", "open its memory (/proc/PID/mem)", "mem"),
		read("proc-environ", "read its environment", "environ"),
		read("proc-maps", "read its mappings", "maps"),
		read("proc-root", "go through its root directory", "root/etc/passwd"),
		read("proc-cwd", "go through its working directory", "cwd"),
		act("proc-fd", "open its files again (/proc/PID/fd)", "ptrace_access_check, file_open", traced, func(o outsider) error { return steal(fmt.Sprintf("/proc/%d/fd/%d", o.PID, o.FD)) }),
		act("pidfd-getfd", "take its descriptors (pidfd_getfd)", "ptrace_access_check, file_receive", traced, func(o outsider) error {
			fd, err := unix.PidfdOpen(o.PID, 0)
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			defer unix.Close(fd)
			got, err := unix.PidfdGetfd(fd, o.FD, 0)
			if err != nil {
				return err
			}
			defer unix.Close(got)
			return stealFrom(got)
		}),
		act("kcmp", "compare its files with one's own (kcmp)", "ptrace_access_check", traced, func(o outsider) error {
			return call(unix.SYS_KCMP, uintptr(o.PID), uintptr(unix.Getpid()), 1, 0, 0)
		}),
		act("move-pages", "move its memory between nodes", "ptrace_access_check, task_movememory", traced+" | process", func(o outsider) error {
			page, node, status := uintptr(o.Address)&^4095, int32(0), int32(0)
			return call(unix.SYS_MOVE_PAGES, uintptr(o.PID), 1, pointer(&page), pointer(&node), pointer(&status), 0)
		}),
		act("robust-list", "read where its locks are (get_robust_list)", "ptrace_access_check", traced, func(o outsider) error {
			var head, size uintptr
			return call(unix.SYS_GET_ROBUST_LIST, uintptr(o.PID), pointer(&head), pointer(&size))
		}),
		act("process-madvise", "have its memory reclaimed (process_madvise)", "ptrace_access_check", traced, func(o outsider) error {
			fd, err := unix.PidfdOpen(o.PID, 0)
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			defer unix.Close(fd)
			iov := [2]uint64{o.Address &^ 4095, 4096}
			return call(unix.SYS_PROCESS_MADVISE, uintptr(fd), pointer(&iov), 1, unix.MADV_COLD, 0)
		}),
		act("perf-task", "watch it (perf_event_open)", "perf_event_open, ptrace_access_check", "perf privilege | ptrace privilege process %VICTIM% | capability privilege", func(o outsider) error { return perf(o.PID) }),
	}
}

// unlessNil runs the next step if there was no error.
func unlessNil(err error, next func() error) error {
	if err != nil {
		return nil
	}
	return next()
}

// missing says why it can't be tried on some kernels.
func (t technique) missing(why string) technique {
	t.impossible = why
	return t
}

// launched says that the launcher's filter refuses it too.
func (t technique) launched() technique {
	t.launch = true
	return t
}

func perf(pid int) error {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_DUMMY, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}, pid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
