// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// lsmRuns is nil where an LSM program loads, attaches and is called. The answer
// can't change while a test binary runs, and detaching costs a grace period.
var lsmRuns = sync.OnceValue(probeLSM)

// probeLSM attaches a program that only counts, and opens a file. Loading alone
// proves nothing: without bpf in lsm= a program attaches and is never called.
func probeLSM() error {
	counter, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("create a map: %w", err)
	}
	defer counter.Close()

	program, err := ebpf.NewProgram(countOpens(counter))
	if errors.Is(err, unix.EPERM) {
		return errors.New("LSM programs are refused by this kernel (EPERM)")
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
	return called(counter)
}

// called opens a file and checks that the attached program saw it.
func called(counter *ebpf.Map) error {
	file, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer file.Close()

	var count uint64
	if err := counter.Lookup(uint32(0), &count); err != nil {
		return fmt.Errorf("read the counter: %w", err)
	}
	if count == 0 {
		return errors.New("LSM programs attach but never run: bpf is missing from lsm= on the kernel's command line")
	}
	return nil
}

func countOpens(counter *ebpf.Map) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name:       "count_opens",
		Type:       ebpf.LSM,
		AttachType: ebpf.AttachLSMMac,
		AttachTo:   "file_open",
		License:    "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapValue(asm.R1, counter.FD(), 0),
			asm.Mov.Imm(asm.R2, 1),
			asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	}
}
