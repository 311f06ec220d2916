// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
)

// instructionsVariable says that the clock counts instructions.
const instructionsVariable = "BAILIFF_BENCH_ICOUNT"

// place is where figures are taken.
type place struct {
	Kernel       string
	Guest        bool
	Instructions bool // the clock counts instructions
	Full         bool // the full tier
	reason       error
}

func here() (p place, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return p, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return p, err
	}
	p.Kernel = unix.ByteSliceToString(name.Release[:])
	p.Guest = strings.Contains(string(line), " bailiff.vm=1 ")
	p.Instructions = p.Guest && os.Getenv(instructionsVariable) == "1"
	p.reason = bpf.ProbeLSM()
	p.Full = p.reason == nil
	return p, nil
}

func (p place) String() string {
	tier, where := "basic", ""
	if p.Full {
		tier = "full"
	}
	if p.Guest {
		where = "guest, "
	}
	if p.Instructions {
		where = "guest, instructions, "
	}
	return p.Kernel + ", " + where + tier + " tier"
}
