// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Values that golang.org/x/sys/unix has no name for.
const (
	sockTypeMask    = 0xf       // socket(2) and socketpair(2): the rest are flags
	sockPacket      = 10        // AF_INET with this type is a packet socket
	readImpliesExec = 0x0400000 // personality(2): READ_IMPLIES_EXEC
	askPersonality  = 1<<32 - 1 // what is asked with all bits set changes nothing
	newNamespaces   = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

// callRules is everything the filter refuses, and why.
//
// ENOSYS is for calls with an older way to do the same, which programs then
// take; EPERM is what an unprivileged user gets for them anyway.
func callRules() []callRule {
	return slices.Concat(ringRules(), socketRules(), optionRules(), requestRules(), namespaceRules(), mountRules(),
		codeRules(), kernelRules(), machineRules())
}

func ringRules() []callRule {
	const why = "a ring works in the kernel's name, past the hooks and this filter"
	return []callRule{
		{name: "io_uring_setup", call: unix.SYS_IO_URING_SETUP, errno: unix.ENOSYS, why: why},
		{name: "io_uring_enter", call: unix.SYS_IO_URING_ENTER, errno: unix.ENOSYS, why: why},
		{name: "io_uring_register", call: unix.SYS_IO_URING_REGISTER, errno: unix.ENOSYS, why: why},
	}
}

func socketRules() []callRule {
	internet := match{arg: 0, op: oneOf, mask: ^uint32(0), values: []uint32{unix.AF_INET, unix.AF_INET6}}
	typed := func(op matchOp, types ...uint32) match {
		return match{arg: 1, op: op, mask: sockTypeMask, values: types}
	}
	protocol := func(op matchOp, protocols ...uint32) match {
		return match{arg: 2, op: op, mask: ^uint32(0), values: protocols}
	}
	family := func(op matchOp, families ...uint32) match {
		return match{arg: 0, op: op, mask: ^uint32(0), values: families}
	}
	socket := func(errno syscall.Errno, why string, when ...match) callRule {
		return callRule{name: "socket", call: unix.SYS_SOCKET, when: when, errno: errno, why: why}
	}
	return []callRule{
		socket(unix.EAFNOSUPPORT, "packet, vsock, XDP, TIPC, CAN, Bluetooth and the like leave the host unjudged",
			family(noneOf, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK)),
		socket(unix.EPERM, "a raw socket makes up its own packets",
			internet, typed(oneOf, unix.SOCK_RAW, sockPacket)),
		socket(unix.EPROTONOSUPPORT, "MPTCP opens subflows to addresses that the peer names",
			internet, protocol(oneOf, unix.IPPROTO_MPTCP)),
		socket(unix.EPROTONOSUPPORT, "the connect hooks don't see SCTP, DCCP and UDP-Lite; policies speak of TCP and UDP",
			internet, protocol(noneOf, 0, unix.IPPROTO_TCP, unix.IPPROTO_UDP)),
		socket(unix.ESOCKTNOSUPPORT, "the other types (SCTP, DCCP, RDM) with the default protocol",
			internet, typed(noneOf, unix.SOCK_STREAM, unix.SOCK_DGRAM)),
		socket(unix.EPROTONOSUPPORT, "only the routing family is needed, to list addresses; the others configure the kernel",
			family(oneOf, unix.AF_NETLINK), protocol(noneOf, unix.NETLINK_ROUTE)),
		{name: "socketpair", call: unix.SYS_SOCKETPAIR, errno: unix.EAFNOSUPPORT, why: "pairs are for Unix sockets",
			when: []match{family(noneOf, unix.AF_UNIX)}},
	}
}

func namespaceRules() []callRule {
	const why = "a new namespace comes with its own privileges and its own view of paths"
	return []callRule{
		{name: "unshare", call: unix.SYS_UNSHARE, errno: unix.EPERM, why: why,
			when: []match{{arg: 0, op: anyBits, mask: newNamespaces | unix.CLONE_NEWTIME}}},
		{name: "clone", call: unix.SYS_CLONE, errno: unix.EPERM, why: why,
			when: []match{{arg: 0, op: anyBits, mask: newNamespaces}}},
		{name: "clone3", call: unix.SYS_CLONE3, errno: unix.ENOSYS, why: "its flags are in memory that a filter can't read; C libraries fall back to clone"},
		{name: "setns", call: unix.SYS_SETNS, errno: unix.EPERM, why: why},
	}
}

func mountRules() []callRule {
	const why = "a mount changes what a path means"
	rules := []callRule{
		{name: "mount", call: unix.SYS_MOUNT},
		{name: "umount2", call: unix.SYS_UMOUNT2},
		{name: "pivot_root", call: unix.SYS_PIVOT_ROOT},
		{name: "chroot", call: unix.SYS_CHROOT},
		{name: "move_mount", call: unix.SYS_MOVE_MOUNT},
		{name: "open_tree", call: unix.SYS_OPEN_TREE},
		{name: "open_tree_attr", call: unix.SYS_OPEN_TREE_ATTR},
		{name: "fsopen", call: unix.SYS_FSOPEN},
		{name: "fsconfig", call: unix.SYS_FSCONFIG},
		{name: "fsmount", call: unix.SYS_FSMOUNT},
		{name: "fspick", call: unix.SYS_FSPICK},
		{name: "mount_setattr", call: unix.SYS_MOUNT_SETATTR},
	}
	for i := range rules {
		rules[i].errno, rules[i].why = unix.EPERM, why
	}
	return append(rules,
		callRule{name: "open_by_handle_at", call: unix.SYS_OPEN_BY_HANDLE_AT, errno: unix.EPERM, why: "opens by number, past every directory"},
		callRule{name: "fanotify_init", call: unix.SYS_FANOTIFY_INIT, errno: unix.EPERM, why: "hands out open files of the whole mount"})
}

// codeRules refuse ways to executable memory that no hook sees: a mapping to read
// that becomes one to execute because the process asked for that beforehand, and
// remapping, which before 6.12 asked no hook at all.
func codeRules() []callRule {
	return []callRule{
		{name: "personality", call: unix.SYS_PERSONALITY, errno: unix.EPERM, why: "makes executable what was mapped to be read", when: []match{
			{arg: 0, op: anyBits, mask: readImpliesExec},
			{arg: 0, op: noneOf, mask: ^uint32(0), values: []uint32{askPersonality}},
		}},
		{name: "remap_file_pages", call: unix.SYS_REMAP_FILE_PAGES, errno: unix.ENOSYS, why: "maps a file anew, past the hooks; nothing has used it for years"},
	}
}

func kernelRules() []callRule {
	const (
		code = "runs code in the kernel"
		keys = "a missing key is fetched by a helper that runs outside every session"
		host = "changes the whole host"
	)
	return []callRule{
		{name: "bpf", call: unix.SYS_BPF, errno: unix.EPERM, why: "could detach the programs that enforce"},
		{name: "perf_event_open", call: unix.SYS_PERF_EVENT_OPEN, errno: unix.EPERM, why: "watches other processes and the kernel"},
		{name: "userfaultfd", call: unix.SYS_USERFAULTFD, errno: unix.EPERM, why: "stops the kernel in the middle of a copy: the tool of race exploits"},
		{name: "init_module", call: unix.SYS_INIT_MODULE, errno: unix.EPERM, why: code},
		{name: "finit_module", call: unix.SYS_FINIT_MODULE, errno: unix.EPERM, why: code},
		{name: "delete_module", call: unix.SYS_DELETE_MODULE, errno: unix.EPERM, why: code},
		{name: "kexec_load", call: unix.SYS_KEXEC_LOAD, errno: unix.EPERM, why: code},
		{name: "kexec_file_load", call: unix.SYS_KEXEC_FILE_LOAD, errno: unix.EPERM, why: code},
		{name: "lookup_dcookie", call: unix.SYS_LOOKUP_DCOOKIE, errno: unix.EPERM, why: "names files of other processes, for profilers"},
		{name: "pidfd_getfd", call: unix.SYS_PIDFD_GETFD, errno: unix.EPERM, why: "takes open files and sockets out of another process"},
		{name: "file_setattr", call: unix.SYS_FILE_SETATTR, errno: unix.ENOSYS, why: "changes a file's attributes past the hooks that see the older way, an ioctl"},
		{name: "syslog", call: unix.SYS_SYSLOG, errno: unix.EPERM, why: "the kernel's log tells of all that runs on the host"},
		{name: "vhangup", call: unix.SYS_VHANGUP, errno: unix.EPERM, why: "hangs up the terminal of whoever started the session"},
		{name: "add_key", call: unix.SYS_ADD_KEY, errno: unix.ENOSYS, why: keys},
		{name: "request_key", call: unix.SYS_REQUEST_KEY, errno: unix.ENOSYS, why: keys},
		{name: "keyctl", call: unix.SYS_KEYCTL, errno: unix.ENOSYS, why: keys},
		{name: "reboot", call: unix.SYS_REBOOT, errno: unix.EPERM, why: host},
		{name: "swapon", call: unix.SYS_SWAPON, errno: unix.EPERM, why: host},
		{name: "swapoff", call: unix.SYS_SWAPOFF, errno: unix.EPERM, why: host},
		{name: "acct", call: unix.SYS_ACCT, errno: unix.EPERM, why: "writes a file in the kernel's name"},
		{name: "quotactl", call: unix.SYS_QUOTACTL, errno: unix.EPERM, why: host},
		{name: "quotactl_fd", call: unix.SYS_QUOTACTL_FD, errno: unix.EPERM, why: host},
		{name: "settimeofday", call: unix.SYS_SETTIMEOFDAY, errno: unix.EPERM, why: host},
		{name: "clock_settime", call: unix.SYS_CLOCK_SETTIME, errno: unix.EPERM, why: host},
		{name: "adjtimex", call: unix.SYS_ADJTIMEX, errno: unix.EPERM, why: host},
		{name: "clock_adjtime", call: unix.SYS_CLOCK_ADJTIME, errno: unix.EPERM, why: host},
		{name: "sethostname", call: unix.SYS_SETHOSTNAME, errno: unix.EPERM, why: host},
		{name: "setdomainname", call: unix.SYS_SETDOMAINNAME, errno: unix.EPERM, why: host},
	}
}
