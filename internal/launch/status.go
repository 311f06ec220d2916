// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Status is how a command ended.
type Status struct {
	Code   int            // exit status, where Signal is 0
	Signal syscall.Signal // the signal that killed it
}

// ExitCode is the status as shells write it: 128 + n after signal n.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// Exit ends this process the way the command ended, so that whoever waits for
// it can't tell the two apart.
func (s Status) Exit() {
	if s.Signal != 0 {
		// The core that counts would have been the command's.
		_ = forbidCores()
		raise(s.Signal)
	}
	os.Exit(s.ExitCode())
}

// forbidCores: the program that core_pattern may name runs outside every
// session. A limit of 0 stops files only; at 1, too little for a file as well,
// the kernel doesn't start the program either.
func forbidCores() error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
}

// readOnlyMaps ends what a session may not ask for and could have inherited: that
// what is mapped to be read may be executed.
func readOnlyMaps() error {
	old, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, askPersonality, 0, 0)
	if errno == 0 && old&readImpliesExec != 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_PERSONALITY, old&^readImpliesExec, 0, 0)
	}
	if errno != 0 {
		return fmt.Errorf("set personality: %w", errno)
	}
	return nil
}

// kernelAction is struct sigaction as rt_sigaction(2) takes it.
type kernelAction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// raise kills this process with a signal. os/signal can't give SIGQUIT or
// SIGSEGV their default action: the Go runtime would print its stacks.
func raise(sig syscall.Signal) {
	var act kernelAction // handler 0: SIG_DFL
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	set := unix.Sigset_t{}
	set.Val[0] = 1 << (uint(sig) - 1)
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
}
