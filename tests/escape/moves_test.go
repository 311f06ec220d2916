// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// move gives a file or a directory a name with other rights. Each try has a
// tree of its own, with a file "plain" in it.
func move(id, title, hooks, seen string, attack, neighbour func(f *field, dir string) error) technique {
	within := func(do func(f *field, dir string) error) func(f *field) error {
		return func(f *field) error {
			dir := f.own(id)
			err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o777), os.WriteFile(dir+"/plain", []byte("plain"), 0o666))
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			return do(f, dir)
		}
	}
	return technique{id: id, title: title, hooks: hooks, seen: seen, attack: within(attack), neighbour: within(neighbour)}
}

func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// linkTechniques give a file one more name.
func linkTechniques() []technique {
	const hook = "path_link"
	return []technique{
		move("link-out", "a hard link to a file that may not be read", hook, "link default %DIR%/secret/f | link wider %DIR%/secret/f",
			func(f *field, dir string) error {
				return errors.Join(os.Link(f.Dir+"/secret/f", dir+"/link"), steal(dir+"/link"))
			},
			func(f *field, dir string) error {
				return errors.Join(os.Link(dir+"/plain", dir+"/link"), peek(dir+"/link"))
			}),
		move("link-wider", "a hard link that makes what may be read writable", hook, "link narrow/files/3 %DIR%/shared/data | link default %DIR%/shared/data | link wider %DIR%/shared/data",
			func(f *field, dir string) error {
				return errors.Join(os.Link(f.Dir+"/shared/data", dir+"/link"), poke(dir+"/link"))
			},
			func(f *field, dir string) error {
				return errors.Join(os.Link(dir+"/plain", dir+"/link"), poke(dir+"/link"))
			}),
		move("link-descriptor", "a hard link by /proc/self/fd of a descriptor (linkat)", hook, "link wider %DIR%/shared/data | link default %DIR%/shared/data | link narrow/files/3 %DIR%/shared/data", func(f *field, dir string) error {
			return errors.Join(linkByDescriptor(f.Dir+"/shared/data", dir+"/link"), poke(dir+"/link"))
		}, func(f *field, dir string) error { return linkByDescriptor(dir+"/plain", dir+"/link") }),
		move("link-nameless", "a nameless file (O_TMPFILE), linked where nothing may be made", hook, "link narrow/files/1 | link wider",
			func(f *field, dir string) error { return linkNameless(dir, f.Work+"/sealed/nameless-"+f.World) },
			func(f *field, dir string) error { return linkNameless(dir, dir+"/named") }),
		move("link-pattern", "a hard link to a file whose name is denied", hook, "link narrow/files/2 %WORK%/.env | link wider %WORK%/.env",
			func(f *field, dir string) error {
				return errors.Join(os.Link(f.Work+"/.env", dir+"/env"), steal(dir+"/env"))
			},
			func(f *field, dir string) error { return os.Link(dir+"/plain", dir+"/envrc") }),
	}
}

// renameTechniques give a file or a directory another name.
func renameTechniques() []technique {
	return []technique{
		move("rename-pattern", "rename a file away from a name that is denied", "path_rename", "rename narrow/files/2 %WORK%/.env",
			func(f *field, dir string) error {
				return errors.Join(os.Rename(f.Work+"/.env", dir+"/env"), steal(dir+"/env"), os.Rename(dir+"/env", f.Work+"/.env"))
			},
			func(f *field, dir string) error {
				return errors.Join(os.Rename(dir+"/plain", dir+"/other"), peek(dir+"/other"))
			}),
		move("rename-parent", "rename the directory above what is denied", "path_rename", "rename", func(f *field, dir string) error {
			return errors.Join(os.Rename(f.Work+"/sealed", dir+"/open"), steal(dir+"/open/f"), os.Rename(dir+"/open", f.Work+"/sealed"))
		}, func(f *field, dir string) error {
			return errors.Join(os.Mkdir(dir+"/a", 0o777), os.Rename(dir+"/a", dir+"/b"))
		}),
		move("rename-exchange", "exchange a file with one that is denied", "path_rename", "rename",
			func(f *field, dir string) error {
				return errors.Join(exchange(dir+"/plain", f.Work+"/sealed/f"), steal(dir+"/plain"), exchange(dir+"/plain", f.Work+"/sealed/f"))
			},
			func(f *field, dir string) error {
				return errors.Join(fresh(dir+"/second"), exchange(dir+"/plain", dir+"/second"))
			}),
		move("rename-in", "rename a file to where nothing may be made", "path_rename", "rename",
			func(f *field, dir string) error { return os.Rename(dir+"/plain", f.Work+"/sealed/moved-"+f.World) },
			func(f *field, dir string) error { return os.Rename(dir+"/plain", dir+"/third") }),
		move("rename-over", "rename over a file that may not be changed", "path_rename", "rename",
			func(f *field, dir string) error { return os.Rename(dir+"/plain", f.Dir+"/shared/other") },
			func(f *field, dir string) error {
				return errors.Join(fresh(dir+"/second"), os.Rename(dir+"/second", dir+"/plain"))
			}),
		move("rename-pattern-parent", "rename the directory above one whose name is denied", "path_rename", "rename", func(f *field, dir string) error {
			git := f.Work + "/repo/.git"
			return errors.Join(os.Rename(git, dir+"/git"), fresh(dir+"/git/hooks/x"), os.Rename(dir+"/git", git))
		}, func(f *field, dir string) error {
			return errors.Join(os.Mkdir(dir+"/github", 0o777), os.Rename(dir+"/github", dir+"/git"))
		}),
		move("rename-hooks-in", "bring in a tree that has what may not be made there", "path_rename", "rename", func(f *field, dir string) error {
			err := errors.Join(os.MkdirAll(dir+"/git/hooks", 0o777), fresh(dir+"/git/hooks/pre-commit"))
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			return os.Rename(dir+"/git", dir+"/.git")
		}, func(f *field, dir string) error {
			return errors.Join(os.MkdirAll(dir+"/a/b", 0o777), os.Rename(dir+"/a", dir+"/c"))
		}),
		move("rename-tree-in", "bring in a tree with a name that is denied inside", "path_rename", "open narrow/files/2 | create narrow/files/2 | rename",
			func(f *field, dir string) error {
				return errors.Join(os.WriteFile(dir+"/env", []byte("x"), 0o666), os.Rename(dir+"/env", dir+"/.env"))
			}, func(f *field, dir string) error { return os.Rename(dir+"/plain", dir+"/.envrc") }),
	}
}

func linkByDescriptor(from, to string) error {
	fd, err := unix.Open(from, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

func linkNameless(dir, to string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

// contentTechniques change what may only be read.
func contentTechniques() []technique {
	change := func(id, title, hooks, seen string, do func(path string) error) technique {
		return technique{
			id: id, title: title, hooks: hooks, seen: seen,
			attack: func(f *field) error { return do(f.Dir + "/shared/data") },
			neighbour: func(f *field) error {
				path := f.own(id)
				if err := fresh(path); err != nil {
					return err
				}
				return do(path)
			},
		}
	}
	const data = " default %DIR%/shared/data"
	attribute := change("xattr", "set an extended attribute", "inode_setxattr, inode_removexattr", "xattr"+data, func(path string) error {
		return unix.Setxattr(path, "user.escape", []byte("x"), 0)
	})
	attribute.attack = func(f *field) error { return unix.Setxattr(f.Disk+"/shared/data", "user.escape", []byte("x"), 0) }
	attribute.seen = "xattr default %DISK%/shared/data"
	attribute.neighbour = func(f *field) error { return unix.Setxattr(f.Disk+"/work/data", "user.escape", []byte("x"), 0) }
	return []technique{
		change("write", "write", "file_open", "open"+data, poke),
		change("truncate", "truncate by name", "path_truncate", "truncate"+data, func(path string) error { return unix.Truncate(path, 4) }),
		change("truncate-open", "truncate by opening for reading (O_TRUNC)", "file_open", "open"+data, func(path string) error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		change("open-neither", "open with neither right (access mode 3), for ioctl", "file_open", "open"+data, func(path string) error {
			fd, err := unix.Open(path, 3|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		change("chmod", "change the mode", "path_chmod", "chmod"+data, func(path string) error { return unix.Chmod(path, 0o777) }),
		change("chown", "change the owner", "path_chown", "chown"+data, func(path string) error { return unix.Chown(path, os.Getuid(), os.Getgid()) }),
		change("times", "change the times", "inode_setattr", "times", func(path string) error { return unix.Utimes(path, []unix.Timeval{{}, {}}) }),
		attribute,
		{
			id: "inode-flags", title: "change a file's flags by ioctl", hooks: "file_ioctl", root: true, seen: "xattr default %DISK%/shared/data",
			attack:    func(f *field) error { return setFlags(f.Disk + "/shared/data") },
			neighbour: func(f *field) error { return peek(f.Disk + "/shared/data") },
		},
	}
}

// treeTechniques make and delete files where that is not allowed.
func treeTechniques() []technique {
	return []technique{
		{
			id: "create", title: "create a file", hooks: "path_mknod", seen: "create narrow/files/1 %WORK%/sealed/ | open narrow/files/1 %WORK%/sealed/",
			attack:    func(f *field) error { return fresh(f.Work + "/sealed/" + f.World) },
			neighbour: func(f *field) error { return fresh(f.own("created")) },
		},
		{
			id: "create-pattern", title: "create a file in a directory whose name is denied everywhere", hooks: "path_mknod",
			seen:      "create narrow/files/8 %WORK%/repo/.git/hooks/ | open narrow/files/8 %WORK%/repo/.git/hooks/",
			attack:    func(f *field) error { return fresh(f.Work + "/repo/.git/hooks/" + f.World) },
			neighbour: func(f *field) error { return fresh(f.Work + "/repo/.git/description-" + f.World) },
		},
		{
			id: "mkdir", title: "make a directory", hooks: "path_mkdir", basic: true, seen: "mkdir default %DIR%/shared/",
			attack:    func(f *field) error { return os.Mkdir(f.Dir+"/shared/directory-"+f.World, 0o777) },
			neighbour: func(f *field) error { return os.MkdirAll(f.own("directory"), 0o777) },
		},
		{
			id: "symlink", title: "make a symbolic link", hooks: "path_symlink", basic: true, seen: "symlink default %DIR%/shared/",
			attack:    func(f *field) error { return os.Symlink("/", f.Dir+"/shared/link-"+f.World) },
			neighbour: func(f *field) error { os.Remove(f.own("symlink")); return os.Symlink("/", f.own("symlink")) },
		},
		{
			id: "unlink", title: "delete a file", hooks: "path_unlink", basic: true, seen: "unlink default %DIR%/shared/data",
			attack: func(f *field) error {
				return errors.Join(unix.Unlink(f.Dir+"/shared/data"), fresh(f.Dir+"/shared/data"))
			},
			neighbour: func(f *field) error { return errors.Join(fresh(f.own("gone")), os.Remove(f.own("gone"))) },
		},
		{
			id: "rmdir", title: "delete a directory", hooks: "path_rmdir", basic: true, seen: "rmdir default %DIR%/shared/empty",
			attack: func(f *field) error {
				return errors.Join(unix.Rmdir(f.Dir+"/shared/empty"), os.Mkdir(f.Dir+"/shared/empty", 0o777))
			},
			neighbour: func(f *field) error {
				return errors.Join(os.MkdirAll(f.own("empty"), 0o777), unix.Rmdir(f.own("empty")))
			},
		},
	}
}

// watchTechniques learn of files.
func watchTechniques() []technique {
	return []technique{
		{
			id: "watch", title: "watch a directory that may not be read (inotify)", hooks: "path_notify", seen: "watch default %DIR%/secret | open default %DIR%/secret",
			attack: func(f *field) error { return watch(f.Dir + "/secret") }, neighbour: func(f *field) error { return watch(f.Work) },
		},
		{
			id: "watch-mount", title: "take open files of a whole mount (fanotify)", hooks: "capable, path_notify", root: true, launch: true, seen: "capability privilege | watch",
			attack: func(f *field) error {
				fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN, unix.AT_FDCWD, f.Dir)
			},
		},
		{
			id: "stat", title: "learn that a file is there (stat, access, O_PATH)", hooks: "none", unrecorded: "no hook is called",
			attack: func(f *field) error { return unix.Access(f.Dir+"/secret/f", unix.F_OK) },
			open:   "no hook tells of it; what is in the file stays closed",
		},
	}
}

func watch(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
	return err
}

// noDump is FS_NODUMP_FL, a flag without effect.
const noDump = 0x40

// setFlags sets and clears "no dump" on a file that is open for reading.
func setFlags(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	return errors.Join(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|noDump), unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags))
}
