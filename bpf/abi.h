/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything whose layout both the kernel programs and Go see. Go's side is
 * generated from the object's BTF (bpf2go -type); nothing here is written twice.
 * Change ABI_VERSION when programs of before and after could not run over the
 * same maps, or the compiler numbers rules in another way: it keeps a build from
 * taking over from the other. Values may be added at the end of an enum.
 */
#ifndef BAILIFF_ABI_H
#define BAILIFF_ABI_H

#define ABI_VERSION 2

enum limits {
	MAX_DEPTH = 64,		/* components of a path, mounts included; deeper is denied */
	MAX_NAME = 256,		/* bytes of a component, with its NUL */
	MAX_AGENTS = 1024,	/* agents with a ruleset at once; number 0 is nobody */
	MAX_STATES = 1 << 20,	/* a cached state number has 20 bits */
	MAX_ANCESTORS = 8,	/* processes told of in an event */
	COMM_LEN = 16,
	EXE_LEN = 256,		/* bytes of the executable's path kept with the label */
	PATH_SHORT = 256,	/* bytes of paths in a short event */
	PATH_LONG = 4096,	/* bytes of paths in a long one; longer paths are cut, and say so */
	SAMPLE_EVERY = 1 << 10,	/* decisions about paths from one that is timed to the next */
	LATENCY_BUCKETS = 20,	/* of decisions that took less than 64 ns, 128 ns, 256 ns, ... */
	RING_WAKE = 1 << 17,	/* bytes of allowed acts that may wait in the ring before the reader is woken */
	FOLDS = 1 << 13,	/* acts that are being repeated, at once */
	DIRCACHE = 1 << 16,	/* slots of the directory cache */
	UNIX_NAME = 108,	/* sun_path */
	GRANTS_AT = 8,		/* grants of one session for one place */
	GRANTED_TO = 8,		/* sessions that have one file open under a grant */
	MAPPED_GRANTS = 8,	/* grants whose files a session has mapped */
};

/*
 * Set when the maps are made, the same for whatever programs run over them:
 * the next build's take it over with the maps. Its version stays where it is,
 * whatever else changes: by it another build learns whether it knows the rest.
 */
struct constants {
	__u32 version;		/* ABI_VERSION */
	__u32 session_level;	/* depth of a session's cgroup below the hierarchy's root */
	__u64 hash_key[2];	/* of the component hash; random, secret */
	__u64 cache_key[2];	/* of the directory cache's tags; the second is odd */
	__u32 full_tier;	/* the LSM programs are attached too: they tell, the cgroup programs back them */
	__u32 pad;
};

/* Rights on a file or a Unix socket; policy.Access has the same bits. */
enum access {
	ACCESS_READ = 1 << 0,
	ACCESS_WRITE = 1 << 1,
	ACCESS_CREATE = 1 << 2,
	ACCESS_DELETE = 1 << 3,
	ACCESS_EXECUTE = 1 << 4,
	ACCESS_CONNECT = 1 << 5,
	ACCESS_COUNT = 6,
};

/* What was tried. New ones go before OP_COUNT. */
enum operation {
	OP_NONE,
	OP_OPEN,
	OP_READ,		/* of a file that is open already */
	OP_WRITE,
	OP_EXEC,
	OP_MAP,			/* executable mapping of a file */
	OP_CREATE,
	OP_MKDIR,
	OP_MKNOD,
	OP_SYMLINK,
	OP_LINK,
	OP_UNLINK,
	OP_RMDIR,
	OP_RENAME,
	OP_TRUNCATE,
	OP_CHMOD,
	OP_CHOWN,
	OP_TIMES,
	OP_XATTR,
	OP_WATCH,		/* be told of changes */
	OP_RECEIVE,		/* a descriptor from another process */
	OP_SOCKET,
	OP_BIND,
	OP_LISTEN,
	OP_ACCEPT,
	OP_CONNECT,
	OP_SEND,
	OP_RECV,
	OP_OPTION,		/* of a socket */
	OP_UNIX_CONNECT,
	OP_PACKET,		/* an IP packet that no earlier check had judged */
	OP_MOUNT,
	OP_NAMESPACE,
	OP_PTRACE,
	OP_BPF,
	OP_SIGNAL,
	OP_CAPABILITY,
	OP_SCHEDULE,		/* priority, limits or memory of another process */
	OP_TERMINAL,		/* input or settings of a terminal that others use */
	OP_RING,		/* io_uring in somebody else's name */
	OP_IPC,			/* System V shared memory, messages, semaphores */
	OP_KEY,
	OP_MODULE,
	OP_PERF,
	OP_CLOCK,
	OP_KERNEL,		/* its log, its memory */
	OP_COUNT,
};

enum verdict {
	VERDICT_ALLOW,
	VERDICT_DENY,
	VERDICT_AUDIT,		/* would have been denied; the policy only watches */
	VERDICT_COUNT,
};

/* Why, where no rule says it. */
enum reason {
	REASON_RULE,		/* event.rule decided */
	REASON_DEFAULT,		/* no rule allows it */
	REASON_OUTSIDE,		/* the path does not lead to the host's root: detached mount, other root */
	REASON_DEEP,		/* more than MAX_DEPTH components */
	REASON_RACE,		/* renames kept changing the path while it was read */
	REASON_FAULT,		/* a kernel read or lookup failed */
	REASON_WIDER,		/* the new name would have wider rights than the old */
	REASON_DEVICE,		/* a device node, which no session may make */
	REASON_SOCKET,		/* a socket family, type or protocol that sessions have no use for */
	REASON_PRIVILEGE,	/* an operation that would reach outside the session */
	REASON_NO_LABEL,	/* in a session's cgroup, without a label */
	REASON_GRANT,		/* event.grant allowed it */
	REASON_FULL,		/* a table of the programs is full */
	REASON_NO_SESSION,	/* in the sessions' cgroup, but of no session that is known */
	REASON_TERMINAL,	/* a pseudoterminal that is not the session's */
	REASON_COUNT,
};

/* Where an event's object is described. */
enum object {
	OBJECT_NONE,
	OBJECT_PATH,		/* path: components, leaf first, each ended by a NUL */
	OBJECT_INET,		/* address, port, protocol */
	OBJECT_UNIX,		/* path as above, or an abstract name in path */
	OBJECT_ABSTRACT,
	OBJECT_SOCKET,		/* family, type, protocol of a socket() call */
	OBJECT_TASK,		/* peer: the process acted upon */
	OBJECT_SAME,		/* as in the event before with this fold */
};

/* What a verdict is counted as. */
enum kind {
	KIND_FILE,
	KIND_EXEC,
	KIND_NETWORK,
	KIND_UNIX,
	KIND_GUARD,
	KIND_COUNT,
};

/* agent.flags */
enum agent_flag {
	AGENT_AUDIT = 1 << 0,	/* allow, and tell what would have been denied */
	AGENT_SELF = 1 << 1,	/* may connect to what its own session listens on */
	AGENT_GUARDED = 1 << 2,	/* a guardrail speaks of files: audit mode denies what can't be resolved */
};

/* state.flags */
enum state_flag {
	STATE_EDGES = 1 << 0,	/* has edges: look the component up */
};

/* grant.flags */
enum grant_flag {
	GRANT_COUNTED = 1 << 0,	/* grant.uses bounds how often it may be used */
	GRANT_KILL = 1 << 1,	/* a session that has mapped a file of it does not outlive it */
};

/*
 * The label of a confined task: value of the task storage map. The first part
 * is set once, when the task comes into a session's cgroup, and by task_alloc for
 * all that descend from it. The rest is scratch of the programs that run in the task:
 * they can be preempted, so per-CPU memory would not do, and no two of them run
 * in one task at once.
 */
struct label {
	__u64 session;
	__u64 cgroup;		/* id of the session's cgroup */
	__u32 agent;		/* index into agents */
	__u32 exe_len;
	char exe[EXE_LEN];	/* components of the executable's path, leaf first, each ended by a NUL */

	__u64 generation;	/* that this decision goes by */
	__u32 state;		/* where the walk ended; 0: nowhere, see reason */
	__u32 also;		/* the same along the superblock's own route, where that differs; 0: it does not */
	__u32 reason;		/* enum reason, of a walk that ended nowhere */
	__u32 bytes;		/* length of what is in name */
	__u32 decisions;	/* about paths, so far: every SAMPLE_EVERY-th is timed */
	__u32 old_rule;		/* of a move's old name: what was only watched there, */
	__u32 old_access;
	__u32 old_reason;
	__u32 old_state;	/* and its state and also */
	__u32 old_also;
	__u64 leaf;		/* dentry and vfsmount of the object */
	__u64 view;
	__u64 at;		/* dentry and vfsmount where a walk goes on */
	__u64 mount;
	__u64 hash[MAX_DEPTH];	/* keyed hashes of the components, leaf first */
	__u64 dentry[MAX_DEPTH];/* their dentries, for their names */
	char name[MAX_NAME];
};

/* A session, found by the id of its cgroup. */
struct session {
	__u64 session;
	__u32 agent;
	__u32 grants;		/* that it has, over or not; 0: none need be looked for */
};

/*
 * What decides for an agent. Each field has two slots; generation & 1 says
 * which one is in force, so that one write puts a whole new set of policies
 * in force for every agent at once.
 */
struct agent {
	__u32 start[2];		/* state of "/"; 0: no ruleset, everything is denied */
	__u32 net_out[2];	/* table of IPv4 addresses to connect to, followed by that of IPv6; 0: none */
	__u32 net_in[2];	/* the same of addresses to listen on */
	__u32 self[2];		/* the `to: self` rule */
	__u32 flags[2];		/* enum agent_flag */
	__u64 capabilities[2];	/* bits that are not denied */
};

/* A state of the path automaton; see policy.State. Number 0 denies everything. */
struct state {
	__u32 next;		/* for a component with no edge */
	__u32 glob;		/* node of the byte automaton to start at; 0: none */
	__u8 allow;
	__u8 deny;		/* by an explicit line */
	__u8 guard;		/* by a guardrail */
	__u8 any;		/* union of allow over all states reachable from here */
	__u8 all;		/* intersection of the same */
	__u8 flags;		/* enum state_flag */
	__u8 any_guard;		/* union of guard over all states reachable from here */
	__u8 pad;
	__u64 lengths;		/* of the names of its edges: bit length % 64 */
	__u32 rule[ACCESS_COUNT];/* who decided, by access bit; 0: the default */
};

/* Key of a transition: a literal has class 0, a glob has hash 0. */
struct edge {
	__u64 hash;
	__u32 state;
	__u32 class;
};

/* A node of the byte automaton. Number 0 is dead. */
struct glob_node {
	__u32 next[256];
	__u32 class;
};

/* Key of the address table: longest prefix of {table, address}. IPv4 is mapped. */
struct net_key {
	__u32 prefixlen;
	__u32 table;
	__u8 address[16];
};

/* Key of the port table: longest prefix of {set, protocol, port}. */
struct port_key {
	__u32 prefixlen;
	__u32 set;
	__u8 protocol;
	__u8 pad;
	__be16 port;
};

struct port_value {
	__u32 rule;
	__u8 allow;
	__u8 guard;
	__u16 pad;
};

/* Access of one session until a deadline; see grants. */
struct grant {
	__u64 session;		/* 0: no grant has this number */
	__u64 deadline;		/* bpf_ktime_get_boot_ns; 0: revoked */
	__s64 uses;		/* left, where GRANT_COUNTED */
	__u32 flags;		/* enum grant_flag */
	__u32 serial;		/* tells it from an earlier one of the same number */
};

/* Key of a place in the tree of files: the chained hash of its components. */
struct grant_path_key {
	__u64 session;
	__u64 hash;
};

/*
 * Key of a place in the network: longest prefix of {session, family, protocol,
 * port, address}. Port 0 is every port; IPv4 is mapped.
 */
struct grant_net_key {
	__u32 prefixlen;
	__u32 session[2];	/* low word first */
	__u8 family;		/* 4 or 6: ::/0 contains what is mapped, and a grant of it must not */
	__u8 protocol;
	__be16 port;
	__u8 address[16];
};

/* The grants for a place, without gaps; number 0 ends them. */
struct grants_at {
	__u32 number[GRANTS_AT];
	__u8 access[GRANTS_AT];	/* of a file; unused in the network */
};

/* Names one grant among all that had its number: serial << 32 | number. */
typedef __u64 grant_name;

/*
 * Which sessions have opened a file under a grant: value of the inode storage
 * map. A slot is free where no session has the cgroup (any more).
 */
struct granted_file {
	__u64 cgroup[GRANTED_TO];
	grant_name grant[GRANTED_TO];
};

/* The grants with GRANT_KILL whose files a session has mapped, without gaps. */
struct mapped {
	grant_name grant[MAPPED_GRANTS];
};

/* What is known of a session's socket: value of the socket storage map. */
struct sock_info {
	__u64 session;
	grant_name grant;	/* that it was connected under; 0: none */
	__u32 agent;
	__u32 pad;
};

/* Where a filesystem is mounted on the host: hashes of that path's components, leaf first. */
struct home {
	__u32 depth;
	__u32 pad;
	__u64 hash[MAX_DEPTH];
};

/* Counts of one agent, per CPU. */
struct counters {
	__u64 verdicts[KIND_COUNT * VERDICT_COUNT];
	__u64 dropped;		/* acts not told: the ring was full, or the agent tells too much */
};

/* How long sampled decisions took, per CPU. */
struct latency {
	__u64 buckets[LATENCY_BUCKETS];	/* the last one holds all that took longer */
	__u64 sum;			/* ns */
};

/* What an agent has told. */
struct budget {
	__u64 told;		/* events since the programs were loaded */
	__u64 read;		/* of those, what is in the ring no more; written by the daemon */
	__s64 tokens;		/* events that it may tell at once */
	__u64 refilled;		/* bpf_ktime_get_boot_ns */
};

struct ancestor {
	__u32 pid;
	char comm[COMM_LEN];
};

/*
 * One verdict, told. The object's path follows in the same record (struct
 * event_short or event_long): path_len bytes of it, then target_len bytes of
 * the second path of a rename or link.
 */
struct event {
	__u8 version;		/* ABI_VERSION */
	__u8 operation;
	__u8 verdict;
	__u8 reason;
	__u8 access;		/* what was asked for */
	__u8 object;		/* enum object */
	__u8 ancestors;		/* how many */
	__u8 cut;		/* the paths did not fit: their beginnings are missing */
	__u64 boot_ns;		/* bpf_ktime_get_boot_ns */
	__u64 session;
	__u64 generation;
	__u32 agent;
	__u32 rule;
	__u32 pid;		/* 0: not in the context of a task of the session */
	__u32 tid;
	__u32 uid;
	__u32 peer;		/* process id of OBJECT_TASK */
	__u16 family;		/* of the socket */
	__u16 type;		/* of the same; number of the capability */
	__u16 protocol;		/* IP protocol */
	__u16 port;		/* host order */
	__u8 address[16];	/* IPv4 is mapped */
	__u32 exe_len;
	__u32 path_len;
	__u32 target_len;
	__u32 device;		/* not 0: path is within the filesystem with this s_dev */
	__u32 grant;		/* that allowed it, where reason is REASON_GRANT */
	__u32 repeats;		/* the same acts since the last event of them, not told one by one */
	__u64 fold;		/* names acts that are the same, for as long as they are repeated; 0: never folded */
	struct ancestor ancestor[MAX_ANCESTORS];
	char exe[EXE_LEN];
};

struct event_short {
	struct event event;
	char path[PATH_SHORT + MAX_NAME];
};

struct event_long {
	struct event event;
	char path[PATH_LONG + MAX_NAME];
};

#endif
