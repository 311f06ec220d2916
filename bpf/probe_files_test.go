// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openFlags() map[string]int {
	return map[string]int{
		"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "3": 3, "trunc": unix.O_TRUNC,
		"creat": unix.O_CREAT, "excl": unix.O_EXCL, "tmpfile": unix.O_TMPFILE, "path": unix.O_PATH,
		"dir": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW, "nonblock": unix.O_NONBLOCK, "append": unix.O_APPEND,
	}
}

// open opens and, unless it is to be kept, closes.
func open(keep bool) operation {
	return func(arg func(int) string) (string, error) {
		fd, err := unix.Open(arg(0), flags(arg(1), openFlags())|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return "", err
		}
		if keep {
			return fmt.Sprint(fd), nil
		}
		return "", unix.Close(fd)
	}
}

func fileProbes() map[string]operation {
	return map[string]operation{
		"open": open(false),
		"fd":   open(true),
		"openat": func(arg func(int) string) (string, error) {
			fd, err := unix.Openat(number(arg(0)), arg(1), flags(arg(2), openFlags())|unix.O_CLOEXEC, 0o644)
			return fmt.Sprint(fd), err
		},
		"close": func(arg func(int) string) (string, error) { return "", unix.Close(number(arg(0))) },
		"read": func(arg func(int) string) (string, error) {
			b := make([]byte, 4096)
			n, err := unix.Read(number(arg(0)), b)
			return string(b[:max(n, 0)]), err
		},
		"write": func(arg func(int) string) (string, error) {
			_, err := unix.Write(number(arg(0)), []byte(arg(1)))
			return "", err
		},
		"chdir":   func(arg func(int) string) (string, error) { return "", unix.Chdir(arg(0)) },
		"mkdir":   func(arg func(int) string) (string, error) { return "", unix.Mkdir(arg(0), 0o755) },
		"symlink": func(arg func(int) string) (string, error) { return "", unix.Symlink(arg(0), arg(1)) },
		"link":    func(arg func(int) string) (string, error) { return "", unix.Link(arg(0), arg(1)) },
		"linkfd": func(arg func(int) string) (string, error) {
			return "", unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+arg(0), unix.AT_FDCWD, arg(1), unix.AT_SYMLINK_FOLLOW)
		},
		"unlink": func(arg func(int) string) (string, error) { return "", unix.Unlink(arg(0)) },
		"rmdir":  func(arg func(int) string) (string, error) { return "", unix.Rmdir(arg(0)) },
		"rename": func(arg func(int) string) (string, error) { return "", unix.Rename(arg(0), arg(1)) },
		"exchange": func(arg func(int) string) (string, error) {
			return "", unix.Renameat2(unix.AT_FDCWD, arg(0), unix.AT_FDCWD, arg(1), unix.RENAME_EXCHANGE)
		},
		"mkdirs": func(arg func(int) string) (string, error) {
			return "", makeDeep(arg(0), slices.Repeat([]string{arg(1)}, number(arg(2))))
		},
		"mkdirsleaf": func(arg func(int) string) (string, error) {
			return "", makeDeep(arg(0), append(slices.Repeat([]string{arg(1)}, number(arg(2))), arg(3)))
		},
		"handle": func(arg func(int) string) (string, error) {
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, arg(0), 0)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d:%s", h.Type(), hex.EncodeToString(h.Bytes())), nil
		},
		"openhandle": openHandle,
		"fsopen":     fsOpen,
		"opentree":   openTree,
		"movemount": func(arg func(int) string) (string, error) {
			mnt, err := unix.OpenTree(unix.AT_FDCWD, arg(0), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return "", err
			}
			defer unix.Close(mnt)
			return "", unix.MoveMount(mnt, "", unix.AT_FDCWD, arg(1), unix.MOVE_MOUNT_F_EMPTY_PATH)
		},
		"storm": storm,
		// Opens a path many times, each with its number in place of a #, and
		// returns how often that was denied.
		"many": func(arg func(int) string) (string, error) {
			denied := 0
			for n := range number(arg(0)) {
				numbered := func(i int) string { return strings.ReplaceAll(arg(i+1), "#", fmt.Sprint(n)) }
				if _, err := open(false)(numbered); err == unix.EACCES {
					denied++
				}
			}
			return fmt.Sprint(denied), nil
		},
		"verdicts": verdicts,
	}
}

func inodeProbes() map[string]operation {
	return map[string]operation{
		"mknod": func(arg func(int) string) (string, error) {
			kinds := map[string]uint32{"fifo": unix.S_IFIFO, "char": unix.S_IFCHR, "block": unix.S_IFBLK, "socket": unix.S_IFSOCK, "file": unix.S_IFREG}
			return "", unix.Mknod(arg(0), kinds[arg(1)]|0o644, int(unix.Mkdev(1, 3)))
		},
		"truncate":  func(arg func(int) string) (string, error) { return "", unix.Truncate(arg(0), 1) },
		"ftruncate": func(arg func(int) string) (string, error) { return "", unix.Ftruncate(number(arg(0)), 1) },
		"chmod":     func(arg func(int) string) (string, error) { return "", unix.Chmod(arg(0), 0o640) },
		"fchmod":    func(arg func(int) string) (string, error) { return "", unix.Fchmod(number(arg(0)), 0o640) },
		"chown":     func(arg func(int) string) (string, error) { return "", unix.Chown(arg(0), 0, 0) },
		"fchown":    func(arg func(int) string) (string, error) { return "", unix.Fchown(number(arg(0)), 0, 0) },
		"utimes": func(arg func(int) string) (string, error) {
			ts := []unix.Timespec{{Sec: 1}, {Sec: 1}}
			return "", unix.UtimesNanoAt(unix.AT_FDCWD, arg(0), ts, 0)
		},
		"setxattr":    func(arg func(int) string) (string, error) { return "", unix.Setxattr(arg(0), arg(1), []byte("1"), 0) },
		"removexattr": func(arg func(int) string) (string, error) { return "", unix.Removexattr(arg(0), arg(1)) },
	}
}

// makeDeep makes a chain of directories below dir, by steps that PATH_MAX doesn't limit.
func makeDeep(dir string, names []string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	for _, name := range names {
		if err != nil {
			return err
		}
		if err = unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
			break
		}
		next := 0
		next, err = unix.Openat(fd, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	return err
}

func openHandle(arg func(int) string) (string, error) {
	kind, text, _ := strings.Cut(arg(1), ":")
	bytes, err := hex.DecodeString(text)
	if err != nil {
		return "", err
	}
	mount, err := unix.Open(arg(0), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open a directory of the mount: %v", err)
	}
	defer unix.Close(mount)
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(int32(number(kind)), bytes), unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

// fsOpen makes a detached tmpfs and opens a file in it.
func fsOpen(func(int) string) (string, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fs)
	const create = 6 // FSCONFIG_CMD_CREATE
	if _, _, errno := unix.Syscall6(unix.SYS_FSCONFIG, uintptr(fs), create, 0, 0, 0, 0); errno != 0 {
		return "", errno
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, "file", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

// openTree clones a mount without attaching it and opens a file in the clone.
func openTree(arg func(int) string) (string, error) {
	mnt, err := unix.OpenTree(unix.AT_FDCWD, arg(0), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(mnt, arg(1), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(mnt)
		return "", err
	}
	unix.Close(fd)
	return fmt.Sprint(mnt), nil
}

// storm opens paths over and over for a time, and returns of each how often it
// opened and how often it was denied: "n n n n".
func storm(arg func(int) string) (string, error) {
	paths := strings.Fields(arg(1))
	counts := make([]int, 2*len(paths))
	stop := time.Now().Add(time.Duration(number(arg(0))) * time.Millisecond)
	var path []byte
	for time.Now().Before(stop) {
		for i := range paths {
			path = append(append(path[:0], paths[i]...), 0)
			fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
			switch errno {
			case 0:
				counts[2*i]++
				unix.Close(int(fd))
			case unix.EACCES:
				counts[2*i+1]++
			}
		}
	}
	return strings.Trim(fmt.Sprint(counts), "[]"), nil
}

// touch makes files, with their directories, outside any session.
func touch(paths ...string) {
	for _, path := range paths {
		if err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			panic(err)
		}
		if err := os.WriteFile(path, []byte("content\n"), 0o644); err != nil {
			panic(err)
		}
	}
}

// verdicts tries each argument, a way and a path with a NUL between, and returns a letter for each: allowed,
// denied, or ? for what is neither.
func verdicts(arg func(int) string) (string, error) {
	var b strings.Builder
	for i := 0; arg(i) != ""; i++ {
		way, path, _ := strings.Cut(arg(i), "\x00")
		var err error
		if way == "mkdir" {
			err = unix.Mkdir(path, 0o755)
		} else {
			_, err = open(false)(func(i int) string { return []string{path, way}[i] })
		}
		switch err {
		case nil:
			b.WriteByte('a')
		case unix.EACCES:
			b.WriteByte('d')
		default:
			b.WriteByte('?')
		}
	}
	return b.String(), nil
}
