// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// callRule refuses one system call with an error number, always or where all
// matches hold. A call that no rule refuses is allowed: this filter takes away
// what has no place in a session, it does not list what has.
type callRule struct {
	name  string
	call  uint32
	when  []match
	errno syscall.Errno
	why   string
}

// match looks at the low 32 bits of an argument: every argument judged here is
// an int or flags that the kernel itself cuts to 32 bits.
type match struct {
	arg    uint32
	op     matchOp
	mask   uint32
	values []uint32
}

type matchOp int

const (
	oneOf   matchOp = iota // argument & mask is one of values
	noneOf                 // argument & mask is none of values
	anyBits                // argument & mask is not zero
)

// Offsets in struct seccomp_data. Both supported machines are little-endian:
// an argument's low half comes first.
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16
)

func deny(errno syscall.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// assembleFilter makes the program. Each call is one block behind one
// comparison, so that no jump is longer than a block, and a call that no rule
// names is allowed by its number alone: the kernel then caches the answer and
// runs no filter for it.
func assembleFilter(arch uint32, foreignFrom uint32, rules []callRule) []bpf.Instruction {
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		deny(unix.ENOSYS),
		bpf.LoadAbsolute{Off: dataCall, Size: 4},
	}
	if foreignFrom != 0 {
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: foreignFrom, SkipFalse: 1}, deny(unix.ENOSYS))
	}
	for done := []uint32{}; len(rules) > 0; rules = rules[1:] {
		call := rules[0].call
		if slices.Contains(done, call) {
			continue
		}
		done = append(done, call)
		block := callBlock(call, rules)
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipFalse: uint8(len(block))})
		prog = append(prog, block...)
	}
	return append(prog, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

// callBlock tries all rules of one call in their order.
func callBlock(call uint32, rules []callRule) (block []bpf.Instruction) {
	for _, r := range rules {
		if r.call != call {
			continue
		}
		code := []bpf.Instruction{deny(r.errno)}
		for _, m := range slices.Backward(r.when) {
			code = append(m.compile(uint8(len(code))), code...)
		}
		block = append(block, code...)
	}
	return append(block, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

// compile continues after its last instruction where m holds, and else skips
// rest instructions more.
func (m match) compile(rest uint8) []bpf.Instruction {
	load := bpf.LoadAbsolute{Off: dataArgs + 8*m.arg, Size: 4}
	if m.op == anyBits {
		return []bpf.Instruction{load, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: m.mask, SkipFalse: rest}}
	}
	code := []bpf.Instruction{load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: m.mask}}
	for i, v := range m.values {
		after := uint8(len(m.values) - 1 - i)
		jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: after}
		switch {
		case m.op == noneOf:
			jump.SkipTrue = after + rest
		case after == 0:
			jump.SkipFalse = rest
		}
		code = append(code, jump)
	}
	return code
}

// filterCalls installs the filter on this thread, for good. no_new_privs must
// be set, unless the thread has CAP_SYS_ADMIN.
func filterCalls() error {
	raw, err := bpf.Assemble(assembleFilter(auditArch, foreignCalls, callRules()))
	if err != nil {
		return fmt.Errorf("assemble seccomp filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	return nil
}
