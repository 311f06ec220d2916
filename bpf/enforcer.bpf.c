//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Bailiff's kernel programs: who is in a session may do what its agent's
 * policies allow, and nothing else; who is not is left alone.
 */
#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

typedef unsigned short umode_t;

#include "kernel.bpf.h"
#include "abi.h"
#include "act.bpf.h"
#include "maps.bpf.h"
#include "hash.bpf.h"
#include "automaton.bpf.h"
#include "dircache.bpf.h"
#include "walk.bpf.h"
#include "label.bpf.h"
#include "fold.bpf.h"
#include "event.bpf.h"
#include "endpoint.bpf.h"
#include "grant.bpf.h"
#include "decide.bpf.h"
#include "net.bpf.h"
#include "terminal.bpf.h"
#include "file.bpf.h"
#include "cgroup.bpf.h"
#include "exec.bpf.h"
#include "guard.bpf.h"
#include "ipc.bpf.h"
#include "join.bpf.h"

/* Run once, by a process whose root is the host's. */
SEC("syscall")
int find_root(void *ctx)
{
	struct task_struct *t = bpf_get_current_task_btf();

	host_root = (__u64)BPF_CORE_READ(t, fs, root.dentry);
	return host_root ? 0 : 1;
}

/* Go's side of a type that no map holds is generated from these. */
const enum grant_flag *const go_grant_flag __attribute__((unused));
const struct event_short *const go_event_short __attribute__((unused));
const struct event_long *const go_event_long __attribute__((unused));
const enum access *const go_access __attribute__((unused));
const enum agent_flag *const go_agent_flag __attribute__((unused));
const enum kind *const go_kind __attribute__((unused));
const enum limits *const go_limits __attribute__((unused));
const enum object *const go_object __attribute__((unused));
const enum operation *const go_operation __attribute__((unused));
const enum reason *const go_reason __attribute__((unused));
const enum state_flag *const go_state_flag __attribute__((unused));
const enum verdict *const go_verdict __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
