/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All maps and globals: what is in them, who writes, what happens when full.
 * Sizes marked (configured) are set by the loader; none of these maps evicts.
 */
#ifndef BAILIFF_MAPS_BPF_H
#define BAILIFF_MAPS_BPF_H

/* A map of its own, which lives as long as the others. */
const volatile struct constants fixed SEC(".rodata.fixed");

/* Set once at load, by each build for its own programs. */
const volatile __u64 rename_lock_at;	/* address of the kernel's rename_lock; 0: no directory cache, walks are not validated */
const volatile __u64 mount_lock_at;	/* address of the kernel's mount_lock */
const volatile __u64 self_hash;		/* hash of "self" */
const volatile __u64 abstract_hash;	/* hash of "\0", the parent of abstract socket names */

const volatile __u64 ring_share = 1;	/* events of one agent that may wait in a ring that is half full */
const volatile __u64 own_turn;		/* see turn */

/* Written by the daemon only. generation & 1 chooses the slot of struct agent. */
__u64 generation = 0;
/* Not 0: there are grants for files, so mappings have to be looked at. Written by the daemon. */
__u64 file_grants = 0;
/* How many events an agent may tell in a second, and at once after it told none. Written by the daemon. */
__u64 tell_rate = 0;
__u64 tell_burst = 0;
/* Id of the cgroup that the sessions' cgroups are in: what is in there and of no session may do nothing. Written by the daemon. */
__u64 parent_cgroup = 0;
/* Address of the dentry that is the host's "/". Set by find_root before anything is attached. */
__u64 host_root = 0;
/* Whose own_turn this is are the programs that tell, while those of two builds are attached. */
__u64 turn = 0;

/* Label of each confined task. Written by the programs of join.bpf.h, task_alloc and the daemon. Full: fork fails. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct label);
} labels SEC(".maps");

/* Sessions by cgroup id. Written by the daemon. Full: the launch is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);	/* (configured) */
	__type(key, __u64);
	__type(value, struct session);
} sessions SEC(".maps");

/* Agents by number. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_AGENTS);
	__type(key, __u32);
	__type(value, struct agent);
} agents SEC(".maps");

/* States of all path automata. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 19);	/* (configured) */
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

/* Transitions of all path automata. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);	/* only the daemon adds: memory for what there is */
	__uint(max_entries, 1 << 20);	/* (configured) */
	__type(key, struct edge);
	__type(value, __u32);
} edges SEC(".maps");

/* Byte automata of all globs. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);	/* (configured) */
	__type(key, __u32);
	__type(value, struct glob_node);
} globs SEC(".maps");

/* Addresses: the port set of the longest prefix. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);	/* (configured) */
	__type(key, struct net_key);
	__type(value, __u32);
} addresses SEC(".maps");

/* Port sets: the verdict of the longest prefix of a port. Written by the daemon. Full: the apply is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);	/* (configured) */
	__type(key, struct port_key);
	__type(value, struct port_value);
} ports SEC(".maps");

/* What was admitted on a session's socket. Written by the cgroup programs. Full: the packet is dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_info);
} socks SEC(".maps");

/* Grants by number. Written by the daemon; programs take uses. Full: the grant is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 17);	/* (configured) */
	__type(key, __u32);
	__type(value, struct grant);
} grants SEC(".maps");

/* Grants for files, by the place that they and what is below them are in. Written by the daemon. Full: the grant is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);	/* (configured) */
	__type(key, struct grant_path_key);
	__type(value, struct grants_at);
} grant_paths SEC(".maps");

/* Grants for addresses: those of the longest prefix. Written by the daemon. Full: the grant is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);	/* (configured) */
	__type(key, struct grant_net_key);
	__type(value, struct grants_at);
} grant_nets SEC(".maps");

/* Under which grants a file was opened. Written by the programs. Full: the open is denied. */
struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct granted_file);
} granted SEC(".maps");

/* Which grants with GRANT_KILL a session has mapped files of. Written by the programs. Full: the mapping is denied. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, __u64);
	__type(value, struct mapped);
} mappings SEC(".maps");

/* Which session made a System V IPC object, by its address. Written by the programs. Full: sessions can make no more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, __u64);
	__type(value, __u64);
} ipc_objects SEC(".maps");

/* Which session made a pseudoterminal, or was started in it, by the address of its inode. Written by the programs. Full: it is nobody's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, __u64);
	__type(value, __u64);
} terminals SEC(".maps");

/* Where filesystems are mounted on the host, by s_dev. Written by the daemon. Full: bind mounts of the rest are denied. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct home);
} homes SEC(".maps");

/* States of directories, see dircache.bpf.h. Written by the programs; entries are overwritten. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DIRCACHE);
	__type(key, __u32);
	__type(value, __u64);
} dircache SEC(".maps");

/* Counts by agent. Written by the programs, read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_AGENTS);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

/* Acts that are being repeated, by what they are. Written by the programs. Full: repeats are told one by one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FOLDS);
	__type(key, __u32);
	__type(value, struct fold);
} folds SEC(".maps");

/* What agents have told. Written by the programs and, in memory that it shares, the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_AGENTS);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

/* How long sampled decisions took. Written by the programs, read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct latency);
} latencies SEC(".maps");

/* Verdicts on their way to the daemon. Full: the event is dropped and counted; the verdict stands. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);	/* (configured) */
} events SEC(".maps");

#endif
