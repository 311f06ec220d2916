// SPDX-License-Identifier: Apache-2.0

package launch

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// foreignCalls is where the numbers of the x32 ABI start: they run with
	// the architecture of x86-64 and the same arguments, so a filter that
	// names the native numbers only would not see them.
	foreignCalls = 0x40000000
)

func machineRules() []callRule {
	return []callRule{
		{name: "iopl", call: unix.SYS_IOPL, errno: unix.EPERM, why: "raw access to devices' ports"},
		{name: "ioperm", call: unix.SYS_IOPERM, errno: unix.EPERM, why: "raw access to devices' ports"},
		{name: "uselib", call: unix.SYS_USELIB, errno: unix.ENOSYS, why: "maps a library in the way of a.out; nothing has used it for decades"},
	}
}
