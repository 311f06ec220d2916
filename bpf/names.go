// SPDX-License-Identifier: Apache-2.0

package bpf

// abiVersion is ABI_VERSION in abi.h; a test compares them.
const abiVersion = 2

// name returns the word for a number of the ABI. An unknown one is told as such:
// it can only come from programs of another build, which Load does not adopt.
func name(names []string, n int) string {
	if n < 0 || n >= len(names) || names[n] == "" {
		return "unknown"
	}
	return names[n]
}

func operationNames() []string {
	return []string{
		enforcerOperationOP_NONE:         "any",
		enforcerOperationOP_OPEN:         "open",
		enforcerOperationOP_READ:         "read",
		enforcerOperationOP_WRITE:        "write",
		enforcerOperationOP_EXEC:         "exec",
		enforcerOperationOP_MAP:          "map",
		enforcerOperationOP_CREATE:       "create",
		enforcerOperationOP_MKDIR:        "mkdir",
		enforcerOperationOP_MKNOD:        "mknod",
		enforcerOperationOP_SYMLINK:      "symlink",
		enforcerOperationOP_LINK:         "link",
		enforcerOperationOP_UNLINK:       "unlink",
		enforcerOperationOP_RMDIR:        "rmdir",
		enforcerOperationOP_RENAME:       "rename",
		enforcerOperationOP_TRUNCATE:     "truncate",
		enforcerOperationOP_CHMOD:        "chmod",
		enforcerOperationOP_CHOWN:        "chown",
		enforcerOperationOP_TIMES:        "times",
		enforcerOperationOP_XATTR:        "xattr",
		enforcerOperationOP_WATCH:        "watch",
		enforcerOperationOP_RECEIVE:      "receive",
		enforcerOperationOP_SOCKET:       "socket",
		enforcerOperationOP_BIND:         "bind",
		enforcerOperationOP_LISTEN:       "listen",
		enforcerOperationOP_ACCEPT:       "accept",
		enforcerOperationOP_CONNECT:      "connect",
		enforcerOperationOP_SEND:         "send",
		enforcerOperationOP_RECV:         "recv",
		enforcerOperationOP_OPTION:       "option",
		enforcerOperationOP_UNIX_CONNECT: "unix-connect",
		enforcerOperationOP_PACKET:       "packet",
		enforcerOperationOP_MOUNT:        "mount",
		enforcerOperationOP_NAMESPACE:    "namespace",
		enforcerOperationOP_PTRACE:       "ptrace",
		enforcerOperationOP_BPF:          "bpf",
		enforcerOperationOP_SIGNAL:       "signal",
		enforcerOperationOP_CAPABILITY:   "capability",
		enforcerOperationOP_SCHEDULE:     "schedule",
		enforcerOperationOP_TERMINAL:     "terminal",
		enforcerOperationOP_RING:         "ring",
		enforcerOperationOP_IPC:          "ipc",
		enforcerOperationOP_KEY:          "key",
		enforcerOperationOP_MODULE:       "module",
		enforcerOperationOP_PERF:         "perf",
		enforcerOperationOP_CLOCK:        "clock",
		enforcerOperationOP_KERNEL:       "kernel",
	}
}

func kindOf(op enforcerOperation) enforcerKind {
	switch {
	case op == enforcerOperationOP_EXEC || op == enforcerOperationOP_MAP:
		return enforcerKindKIND_EXEC
	case op < enforcerOperationOP_SOCKET:
		return enforcerKindKIND_FILE
	case op == enforcerOperationOP_UNIX_CONNECT:
		return enforcerKindKIND_UNIX
	case op <= enforcerOperationOP_PACKET:
		return enforcerKindKIND_NETWORK
	}
	return enforcerKindKIND_GUARD
}

func kindNames() []string {
	return []string{
		enforcerKindKIND_FILE:    "file",
		enforcerKindKIND_EXEC:    "exec",
		enforcerKindKIND_NETWORK: "network",
		enforcerKindKIND_UNIX:    "unix",
		enforcerKindKIND_GUARD:   "guard",
	}
}

func verdictNames() []string {
	return []string{
		enforcerVerdictVERDICT_ALLOW: "allow",
		enforcerVerdictVERDICT_DENY:  "deny",
		enforcerVerdictVERDICT_AUDIT: "audit",
	}
}

func reasonNames() []string {
	return []string{
		enforcerReasonREASON_RULE:       "rule",
		enforcerReasonREASON_DEFAULT:    "default",
		enforcerReasonREASON_OUTSIDE:    "outside",
		enforcerReasonREASON_DEEP:       "deep",
		enforcerReasonREASON_RACE:       "race",
		enforcerReasonREASON_FAULT:      "fault",
		enforcerReasonREASON_WIDER:      "wider",
		enforcerReasonREASON_DEVICE:     "device",
		enforcerReasonREASON_SOCKET:     "socket",
		enforcerReasonREASON_PRIVILEGE:  "privilege",
		enforcerReasonREASON_NO_LABEL:   "no-label",
		enforcerReasonREASON_GRANT:      "grant",
		enforcerReasonREASON_FULL:       "full",
		enforcerReasonREASON_NO_SESSION: "no-session",
		enforcerReasonREASON_TERMINAL:   "terminal",
	}
}
