// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// attachEmpty attaches an LSM program that does nothing.
func attachEmpty() (link.Link, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bench_empty", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load an empty LSM program: %w", err)
	}
	defer program.Close()
	attached, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return nil, fmt.Errorf("attach an empty LSM program: %w", err)
	}
	return attached, nil
}
