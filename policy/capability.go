// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// Capabilities is a set of Linux capabilities: bit n is the capability of number
// n, as in capabilities(7) and in /proc/PID/status.
type Capabilities uint64

// capability is one of the kernel's.
type capability struct {
	name string // without CAP_
	open bool   // a policy may name it
	what string // what a session could do with it
}

// capabilities returns all that Linux has, in the order of their numbers. Those
// that are open lift checks of owners, modes and limits, beside which the rules of
// the policy hold as ever. With any other a session could undo them, or act where
// they don't reach.
func capabilities() []capability {
	return []capability{
		{"CHOWN", true, "give files to other users"},
		{"DAC_OVERRIDE", true, "read, write and enter files and directories of other users, whatever their modes"},
		{"DAC_READ_SEARCH", true, "read files and enter directories of other users, whatever their modes"},
		{"FOWNER", true, "change modes, times and attributes of files of other users, and remove them from sticky directories"},
		{"FSETID", true, "keep the set-user-ID and set-group-ID bits of files that it changes"},
		{"KILL", true, "signal its own processes that run as other users"},
		{"SETGID", true, "change its groups"},
		{"SETUID", true, "become other users"},
		{"SETPCAP", false, "give its processes other capabilities and change how they are inherited"},
		{"LINUX_IMMUTABLE", false, "make files that nobody can change or remove any more"},
		{"NET_BIND_SERVICE", true, "listen on ports below 1024"},
		{"NET_BROADCAST", false, "send to everybody on a network"},
		{"NET_ADMIN", false, "change addresses, routes and packet filters, and send connections elsewhere than where they were judged to go"},
		{"NET_RAW", false, "make up its own packets, and read those of others"},
		{"IPC_LOCK", true, "lock memory without limit"},
		{"IPC_OWNER", true, "use System V shared memory, queues and semaphores of other users"},
		{"SYS_MODULE", false, "run code in the kernel"},
		{"SYS_RAWIO", false, "reach memory, ports and disks past the kernel"},
		{"SYS_CHROOT", false, "change what a path means"},
		{"SYS_PTRACE", false, "take over other processes"},
		{"SYS_PACCT", false, "have the kernel write a file in its name"},
		{"SYS_ADMIN", false, "mount file systems, enter namespaces and much else that undoes what is enforced"},
		{"SYS_BOOT", false, "restart the machine, or start another kernel"},
		{"SYS_NICE", true, "raise its priority"},
		{"SYS_RESOURCE", false, "lift limits and quotas, that on core dumps among them, whose handler runs outside every session"},
		{"SYS_TIME", false, "set the clock"},
		{"SYS_TTY_CONFIG", false, "hang up and reconfigure the terminals of others"},
		{"MKNOD", false, "make device nodes, and with them reach disks and memory"},
		{"LEASE", true, "take leases on files of other users"},
		{"AUDIT_WRITE", false, "forge records in the kernel's audit log"},
		{"AUDIT_CONTROL", false, "switch the kernel's audit log off"},
		{"SETFCAP", false, "give capabilities to programs that others run"},
		{"MAC_OVERRIDE", false, "pass by mandatory access control"},
		{"MAC_ADMIN", false, "change mandatory access control"},
		{"SYSLOG", false, "read the kernel's log and addresses"},
		{"WAKE_ALARM", false, "wake a machine that sleeps"},
		{"BLOCK_SUSPEND", false, "keep a machine from sleeping"},
		{"AUDIT_READ", false, "read the kernel's audit log"},
		{"PERFMON", false, "watch the kernel and other processes"},
		{"BPF", false, "load programs into the kernel, and detach those that enforce"},
		{"CHECKPOINT_RESTORE", false, "choose process ids and reach the files that others have mapped"},
	}
}

// CapabilityNames returns the names that a policy may write, in the order of the
// kernel's numbers.
func CapabilityNames() []string {
	return allCapabilities().Names()
}

func allCapabilities() (all Capabilities) {
	for n, c := range capabilities() {
		if c.open {
			all |= 1 << n
		}
	}
	return all
}

// Names returns the capabilities as a policy writes them, without CAP_, in the
// order of the kernel's numbers.
func (c Capabilities) Names() []string {
	var names []string
	for n, known := range capabilities() {
		if c&(1<<n) != 0 {
			names = append(names, known.name)
		}
	}
	return names
}

// String returns the capabilities as "CHOWN, SETUID", or "none".
func (c Capabilities) String() string {
	if c == 0 {
		return "none"
	}
	return strings.Join(c.Names(), ", ")
}

// ParseCapability returns the capability of a name, in whatever case and with or
// without CAP_. Where a policy may not name it, c is 0: problem then says what is
// wrong with it, and fix what would be right.
func ParseCapability(word string) (c Capabilities, problem, fix string) {
	name := strings.TrimPrefix(strings.ToUpper(word), "CAP_")
	for n, known := range capabilities() {
		switch {
		case known.name != name:
		case !known.open:
			return 0, "can't be given: with it a session could " + known.what, "remove it; possible are " + joinFields(CapabilityNames())
		default:
			return 1 << n, "", ""
		}
	}
	return 0, "is unknown", suggest(name, CapabilityNames())
}
