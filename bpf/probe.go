// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Why LSM programs can't enforce on a kernel.
var (
	ErrRefused     = errors.New("the kernel refuses LSM programs (EPERM)")
	ErrInert       = errors.New("LSM programs attach but are never called: bpf is missing from the active security modules")
	ErrUnsupported = errors.New("the kernel has no LSM programs")
)

// ErrNamespace says that this process is known to the kernel programs, and to the
// host, by another number than to itself.
var ErrNamespace = errors.New("this process is in a PID namespace of its own, from which the host's processes cannot be seen: " +
	"start it in the host's one (docker run --pid=host, or hostPID: true in Kubernetes)")

// Lacking tells whether an error of ProbeLSM says what the kernel lacks. Any other
// one may be over in a moment, or is for whoever runs this process to mend.
func Lacking(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrInert) || errors.Is(err, ErrUnsupported)
}

// CheckNamespace returns ErrNamespace where this process is in a PID namespace of
// its own.
func CheckNamespace() error {
	const host = 0xEFFFFFFC // PROC_PID_INIT_INO: the number of the first one, on every kernel
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at the PID namespace: %w", err)
	}
	if st.Ino != host {
		return ErrNamespace
	}
	return nil
}

// ProbeLSM finds out whether LSM programs enforce on this kernel, by being
// denied once: it attaches a program that denies this process, and no other,
// to open files, and opens one. See Lacking for what its errors mean.
func ProbeLSM() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bailiff_probe", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open", License: "GPL",
		Instructions: asm.Instructions{
			asm.FnGetCurrentPidTgid.Call(),
			asm.RSh.Imm(asm.R0, 32),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.Mov.Imm(asm.R0, 0),
			asm.JNE.Imm(asm.R1, int32(os.Getpid()), "out"),
			asm.Mov.Imm(asm.R0, -int32(unix.EPERM)),
			asm.Return().WithSymbol("out"),
		},
	})
	if errors.Is(err, unix.EPERM) {
		return ErrRefused
	}
	if err != nil {
		return fmt.Errorf("load an LSM program: %w", unsupported(err))
	}
	defer program.Close()
	if err := CheckNamespace(); err != nil { // it would deny another process
		return err
	}
	attached, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach an LSM program: %w", unsupported(err))
	}
	defer attached.Close()
	f, err := os.Open(os.DevNull)
	if err == nil {
		f.Close()
		return ErrInert
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("open a file: %w", err)
	}
	return nil
}

// unsupported adds ErrUnsupported to an error that says that the kernel lacks the
// hook (no BTF, or no CONFIG_BPF_LSM) or its trampoline (arm64 before 6.4).
func unsupported(err error) error {
	const enotsupp = unix.Errno(524) // the kernel's own ENOTSUPP
	for _, lacks := range []error{ebpf.ErrNotSupported, btf.ErrNotFound, enotsupp, unix.EOPNOTSUPP, unix.ENOSYS} {
		if errors.Is(err, lacks) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}
