// SPDX-License-Identifier: Apache-2.0

// Package bpf owns everything whose layout the kernel sees: the programs, their
// maps, what is pinned, and the one loader. Nothing else imports cilium/ebpf.
package bpf
