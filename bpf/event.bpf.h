/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one way to tell of a verdict. Nothing here can change one: an event that
 * finds the ring full is dropped and counted.
 */
#ifndef BAILIFF_EVENT_BPF_H
#define BAILIFF_EVENT_BPF_H

/* What to tell, and of whom. */
struct act {
	__u64 session;
	__u64 generation;
	__u32 agent;
	__u8 operation;
	__u8 kind;
	__u8 access;		/* what is asked for */
	__u8 access_new;	/* of a rename or link: what is asked for at the new name */
	__u8 exchange;		/* the two names of a rename change places */
	__u8 object;
	__u8 verdict;
	__u8 reason;
	__u16 port;
	__u16 protocol;
	__u8 missing;		/* of access: what no policy speaks of, so that a grant may give it */
	__u8 held;		/* the object is open already, or others take the use: no use of a grant is taken */
	__u32 rule;
	__u32 grant;		/* that allows it */
	__u32 peer;
	__u16 family;
	__u16 type;
	__u8 address[16];
};

/* The current task did it. */
static __always_inline void by_task(struct act *a, const struct label *l)
{
	a->session = l->session;
	a->generation = l->generation;
	a->agent = l->agent;
}

/* Some task of a session did it. */
static __always_inline void by_session(struct act *a, const struct session *s, __u64 generation_now)
{
	a->session = s->session;
	a->generation = generation_now;
	a->agent = s->agent;
}

/*
 * A denial wakes the reader at once. What was allowed may wait until the reader
 * looks by itself, ten times a second: waking it for each cost a quarter of a
 * connection's time.
 */
static __always_inline __u64 wake(const struct act *a)
{
	if (a->verdict == VERDICT_ALLOW && bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < RING_WAKE)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void count(__u32 agent, __u32 kind, __u32 verdict)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &agent);
	__u32 at = kind * VERDICT_COUNT + verdict;

	if (c && at < KIND_COUNT * VERDICT_COUNT)
		c->verdicts[at]++;
}

/*
 * While the programs of two builds are attached to the LSM hooks, both judge and
 * either may deny. Nothing runs after the one that denies, so that one tells;
 * what both let through is told and counted by the one whose turn it is.
 */
static __always_inline bool others_turn(__u8 verdict)
{
	return verdict != VERDICT_DENY && *(volatile __u64 *)&turn != own_turn;
}

static __always_inline void count_allowed(const struct label *l, __u32 kind)
{
	if (!others_turn(VERDICT_ALLOW))
		count(l->agent, kind, VERDICT_ALLOW);
}

static __always_inline void count_drop(__u32 agent)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &agent);

	if (c)
		c->dropped++;
}

/* One step from a dentry towards the host's root, without a label's scratch to note it in. */
struct ascent {
	struct event *event;
	__u64 dentry, mount, root;
	__u32 off;
};

static long ascend(__u32 i, struct ascent *a)
{
	struct mount *m = (void *)a->mount - bpf_core_field_offset(struct mount, mnt), *parent = NULL;
	struct dentry *d = (struct dentry *)a->dentry;
	const unsigned char *name = NULL;
	struct vfsmount *vfs;
	__u32 off = a->off;
	long len;

	if (a->dentry == host_root)
		return 1;
	if (a->dentry == a->root) {
		if (bpf_core_read(&parent, sizeof(parent), &m->mnt_parent) || parent == m ||
		    bpf_core_read(&a->dentry, sizeof(a->dentry), &m->mnt_mountpoint))
			return 1;
		vfs = (void *)parent + bpf_core_field_offset(struct mount, mnt);
		a->mount = (__u64)vfs;
		return bpf_core_read(&a->root, sizeof(a->root), &vfs->mnt_root) ? 1 : 0;
	}
	bpf_core_read(&name, sizeof(name), &d->d_name.name);
	/* Room by steps: the verifier keeps no relation between a place and what is left after it. */
	if (off <= EXE_LEN / 2)
		len = bpf_probe_read_kernel_str(a->event->exe + off, EXE_LEN / 2, name);
	else if (off <= EXE_LEN - EXE_LEN / 4)
		len = bpf_probe_read_kernel_str(a->event->exe + off, EXE_LEN / 4, name);
	else
		return 1;
	if (len <= 0 || bpf_core_read(&a->dentry, sizeof(a->dentry), &d->d_parent))
		return 1;
	a->off += len & (2 * EXE_LEN - 1);
	return 0;
}

/* The executable of a task that has no label to remember it. */
__noinline int fill_executable(struct event *e)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct ascent a = { .event = e };
	struct vfsmount *mnt;
	struct file *file;

	if (!e)
		return 0;
	file = BPF_CORE_READ(t, mm, exe_file);
	if (!file)
		return 0;
	mnt = BPF_CORE_READ(file, f_path.mnt);
	a.dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	a.mount = (__u64)mnt;
	a.root = (__u64)BPF_CORE_READ(mnt, mnt_root);
	bpf_loop(MAX_STEPS, ascend, &a, 0);
	e->exe_len = a.off;
	return 0;
}

/* The current task, its ancestors and its executable. */
__noinline int fill_task(struct event *e, struct label *l)
{
	struct task_struct *t = bpf_get_current_task_btf(), *up;
	__u32 i;

	if (!e)
		return 0;
	e->pid = t->tgid;
	e->tid = t->pid;
	e->uid = (__u32)bpf_get_current_uid_gid();
	for (i = 0; i < MAX_ANCESTORS; i++) {
		up = t->real_parent;
		if (!up || up == t || !up->tgid)
			break;
		t = up;
		e->ancestor[i].pid = t->tgid;
		bpf_probe_read_kernel_str(e->ancestor[i].comm, COMM_LEN, t->comm);
	}
	e->ancestors = i;
	if (l) {
		e->exe_len = l->exe_len;
		bpf_probe_read_kernel(e->exe, EXE_LEN, l->exe);
	} else {
		fill_executable(e);
	}
	return 0;
}

/* Everything but the paths and the task. */
__noinline int fill(struct event *e, struct act *a)
{
	__u32 i;

	if (!e || !a)
		return 0;
	e->version = ABI_VERSION;
	e->operation = a->operation;
	e->verdict = a->verdict;
	e->reason = a->reason;
	e->access = a->access;
	e->object = a->object;
	e->ancestors = 0;
	e->cut = 0;
	e->boot_ns = bpf_ktime_get_boot_ns();
	e->session = a->session;
	e->generation = a->generation;
	e->agent = a->agent;
	e->rule = a->rule;
	e->pid = 0;
	e->tid = 0;
	e->uid = 0;
	e->peer = a->peer;
	e->family = a->family;
	e->type = a->type;
	e->protocol = a->protocol;
	e->port = a->port;
	for (i = 0; i < sizeof(e->address); i++)
		e->address[i] = a->address[i];
	e->exe_len = 0;
	e->path_len = 0;
	e->target_len = 0;
	e->device = 0;
	e->grant = a->grant;
	e->pad = 0;
	return 0;
}

/* An event without a path, of the current task, which has a label where an LSM program tells. */
__noinline int tell(struct act *a, struct label *l)
{
	struct event *e;

	if (!a || (l && others_turn(a->verdict)))
		return 0;
	count(a->agent, a->kind, a->verdict);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_drop(a->agent);
		return 0;
	}
	fill(e, a);
	fill_task(e, l);
	bpf_ringbuf_submit(e, wake(a));
	return 0;
}

/* An event of a session, whose task is not the current one. */
__noinline int tell_packet(struct act *a)
{
	struct event *e;

	if (!a)
		return 0;
	count(a->agent, a->kind, a->verdict);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_drop(a->agent);
		return 0;
	}
	fill(e, a);
	bpf_ringbuf_submit(e, wake(a));
	return 0;
}

/*
 * Append the names of the n collected dentries, leaf first, at off; size is
 * what path holds. What does not fit is left out and event.cut says so.
 */
static __always_inline __u32 put_names(struct label *l, struct event *e, char *path, __u32 size,
				       __u32 off, __u32 n)
{
	__u32 i;

	for (i = 0; i < MAX_DEPTH; i++) {
		struct dentry *d = (struct dentry *)l->dentry[i];
		const unsigned char *name = NULL;
		long len;

		if (i >= n)
			break;
		if (off > size - MAX_NAME) {
			e->cut = 1;
			break;
		}
		bpf_core_read(&name, sizeof(name), &d->d_name.name);
		len = bpf_probe_read_kernel_str(path + off, MAX_NAME, name);
		if (len <= 0)
			break;
		off += len & (2 * MAX_NAME - 1);
	}
	return off;
}

__noinline __u32 put_names_short(struct label *l, struct event_short *r, __u32 n)
{
	if (!l || !r)
		return 0;
	return put_names(l, &r->event, r->path, sizeof(r->path), 0, n);
}

__noinline __u32 put_names_long(struct label *l, struct event_long *r, __u32 off, __u32 n)
{
	if (!l || !r)
		return 0;
	return put_names(l, &r->event, r->path, sizeof(r->path), off, n);
}

__noinline __u32 names_length(struct label *l, __u32 n)
{
	__u32 bytes = 0, len, i;

	if (!l)
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		struct dentry *d = (struct dentry *)l->dentry[i];

		if (i >= n)
			break;
		len = 0;
		bpf_core_read(&len, sizeof(len), &d->d_name.len);
		bytes += len + 1;
	}
	return bytes;
}

static __noinline int tell_long(struct label *l, struct act *a, __u32 n, __u64 second)
{
	struct event_long *r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	__u32 off;

	if (!r) {
		count_drop(l->agent);
		return 0;
	}
	fill(&r->event, a);
	fill_task(&r->event, l);
	off = put_names_long(l, r, 0, n);
	r->event.path_len = off;
	if (second) {
		l->leaf = second;
		n = collect_again(l);
		off = put_names_long(l, r, off, n);
		r->event.target_len = off - r->event.path_len;
	}
	bpf_ringbuf_submit(r, wake(a));
	return 0;
}

static __noinline int tell_short(struct label *l, struct act *a, __u32 n, __u32 device)
{
	struct event_short *r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);

	if (!r) {
		count_drop(l->agent);
		return 0;
	}
	fill(&r->event, a);
	fill_task(&r->event, l);
	r->event.device = device;
	r->event.path_len = put_names_short(l, r, n);
	bpf_ringbuf_submit(r, wake(a));
	return 0;
}

/*
 * An event about the path of dentry first, and of second where that is not 0,
 * both seen through label.view. Spoils the label's scratch.
 */
__noinline int tell_path(struct label *l, struct act *a, __u64 first, __u64 second)
{
	__u32 n;

	if (!l || !a || others_turn(a->verdict))
		return 0;
	count(l->agent, a->kind, a->verdict);
	l->leaf = first;
	n = collect_again(l);
	if (!second && names_length(l, n) <= PATH_SHORT)
		return tell_short(l, a, n, 0);
	return tell_long(l, a, n, second);
}

/* An event about an abstract socket, whose name of len bytes is in label.name. */
__noinline int tell_name(struct label *l, struct act *a, __u32 len)
{
	struct event_short *r;

	if (!l || !a || others_turn(a->verdict))
		return 0;
	count(l->agent, a->kind, a->verdict);
	r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	if (!r) {
		count_drop(l->agent);
		return 0;
	}
	fill(&r->event, a);
	fill_task(&r->event, l);
	bpf_probe_read_kernel(r->path, UNIX_NAME, l->name);
	r->event.path_len = len;
	bpf_ringbuf_submit(r, wake(a));
	return 0;
}

/* An event about label.leaf, of which no mount is known, on the filesystem with this s_dev. */
__noinline int tell_inode(struct label *l, struct act *a, __u32 device)
{
	if (!l || !a || others_turn(a->verdict))
		return 0;
	count(l->agent, a->kind, a->verdict);
	return tell_short(l, a, climb_super(l), device);
}

#endif
