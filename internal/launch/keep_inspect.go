// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Values that golang.org/x/sys/unix has no name for.
const (
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
	memoryMajor   = 1 // of /dev/null and the like
)

// inspect tells what one descriptor is, and refuses those that would let a session
// act where nothing judges it.
func inspect(n int) (kept, error) {
	// What this process opened itself is close-on-exec, what it inherited can't be.
	if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
		return kept{}, fmt.Errorf("it is not open here: open it for this command, as in `bailiff run --keep-fd %d ... %d<FILE` (sudo closes all from 3 on)", n, n)
	}
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(n))
	if err != nil {
		return kept{}, fmt.Errorf("look at it: %w: /proc must be mounted", rootCause(err))
	}
	k := kept{Number: n, Link: link}
	if strings.HasPrefix(link, "anon_inode:") {
		return k, fmt.Errorf("it is %s, an object of the kernel's, which a session must not have: hand on a file, pipe or socket", link)
	}
	var st unix.Stat_t
	if err := unix.Fstat(n, &st); err != nil {
		return k, fmt.Errorf("look at it: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		k.Internet, err = inspectSocket(n)
	case unix.S_IFIFO:
	case unix.S_IFREG, unix.S_IFDIR:
		err = inspectFile(n, link)
	case unix.S_IFCHR:
		err = inspectDevice(n, link, st.Rdev)
	default:
		err = fmt.Errorf("it is %s, no file, directory, pipe or socket: hand on one of these", link)
	}
	return k, err
}

// inspectSocket refuses sockets that a session can't make: what they send and
// receive is not what policies speak of.
func inspectSocket(n int) (internet bool, err error) {
	var is [3]int
	for i, option := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		if is[i], err = unix.GetsockoptInt(n, unix.SOL_SOCKET, option); err != nil {
			return false, fmt.Errorf("ask what socket it is: %w: hand on the socket itself, opened without O_PATH", err)
		}
	}
	family, kind, protocol := is[0], is[1], is[2]
	internet = family == unix.AF_INET || family == unix.AF_INET6
	switch {
	case family == unix.AF_UNIX:
	case internet && kind == unix.SOCK_STREAM && protocol == unix.IPPROTO_TCP:
	case internet && kind == unix.SOCK_DGRAM && protocol == unix.IPPROTO_UDP:
	default:
		return false, fmt.Errorf("it is a socket of family %d, type %d, protocol %d, which a session could not make: only Unix, TCP and UDP sockets can be handed on", family, kind, protocol)
	}
	return internet, nil
}

// inspectFile refuses the files that the kernel makes up: writing to one, or
// holding one of another process, acts on the host, and no hook looks at the
// use of an open file.
func inspectFile(n int, link string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(n, &fs); err != nil {
		return fmt.Errorf("ask what file system it is on: %w", err)
	}
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC,
		unix.NSFS_MAGIC, unix.PID_FS_MAGIC, unix.BINFMTFS_MAGIC, unix.EFIVARFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC,
		unix.PSTOREFS_MAGIC, configfsMagic, fusectlMagic:
		return fmt.Errorf("it is %s on a file system of the kernel's own, by which a session could act on other processes and the host: allow the path in the policy instead, and let the command open it", link)
	}
	return nil
}

// inspectDevice lets terminals pass, and the devices that hold nothing.
func inspectDevice(n int, link string, device uint64) error {
	if unix.Major(device) == memoryMajor {
		switch unix.Minor(device) {
		case 3, 5, 7, 8, 9: // null, zero, full, random, urandom
			return nil
		}
	}
	if _, err := unix.IoctlGetTermios(n, unix.TCGETS); err != nil {
		return fmt.Errorf("it is the device %s, and no terminal: a session must not have it: let something outside of the session use it, and hand on a pipe or socket to that", link)
	}
	return nil
}
