// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Why LSM programs can't enforce here.
var (
	ErrRefused = errors.New("the kernel refuses LSM programs (EPERM)")
	ErrInert   = errors.New("LSM programs attach but are never called: bpf is missing from the active security modules")
)

// ProbeLSM finds out whether LSM programs enforce on this kernel, by being
// denied once: it attaches a program that denies this process, and no other,
// to open files, and opens one.
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
		return fmt.Errorf("load an LSM program: %w", err)
	}
	defer program.Close()
	attached, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach an LSM program: %w", err)
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
