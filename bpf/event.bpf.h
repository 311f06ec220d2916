/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one way to tell of a verdict. Nothing here can change one: an event that
 * finds the ring full is dropped and counted.
 */
#ifndef BAILIFF_EVENT_BPF_H
#define BAILIFF_EVENT_BPF_H

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
	e->repeats = a->repeats;
	e->fold = a->fold;
	return 0;
}

/* An event without a path, of the current task, which has a label where an LSM program tells. */
__noinline int tell(struct act *a, struct label *l)
{
	struct event *e;

	if (!a || (l && others_turn(a->verdict)))
		return 0;
	count(a->agent, a->kind, a->verdict);
	if (!worth_telling(a, identity_of(a)))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_drop(a);
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
	if (!worth_telling(a, identity_of(a)))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_drop(a);
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

/* The identity of the act on the path of the n collected components, and on a second object. */
__noinline __u64 identity_at(struct label *l, struct act *a, __u32 n, __u64 second)
{
	__u64 h;
	__u32 i;

	if (!l || !a)
		return 0;
	h = mix(identity_of(a), second);
	for (i = 0; i < MAX_DEPTH; i++) {
		if (i >= n)
			break;
		h = mix(h, l->hash[i]);
	}
	return h;
}

static __noinline int tell_long(struct label *l, struct act *a, __u32 n, __u64 second)
{
	struct event_long *r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	__u32 off;

	if (!r) {
		count_drop(a);
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
		count_drop(a);
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
	if (!worth_telling(a, identity_at(l, a, n, second)))
		return 0;
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
	put(l, 0, hash_long(l, len & (MAX_NAME - 1)), 0);
	if (!worth_telling(a, identity_at(l, a, 1, 0)))
		return 0;
	r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	if (!r) {
		count_drop(a);
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
	__u32 n;

	if (!l || !a || others_turn(a->verdict))
		return 0;
	count(l->agent, a->kind, a->verdict);
	n = climb_super(l);
	return worth_telling(a, identity_at(l, a, n, 0)) ? tell_short(l, a, n, device) : 0;
}

struct flush {
	__u64 now;
	__u64 session;
};

static long flush_fold(__u32 i, struct flush *flush)
{
	struct fold *f = bpf_map_lookup_elem(&folds, &i);
	struct event *e;
	__u64 count;

	if (!f || !f->count || f->key == FOLD_CHANGES || (flush->now < f->until && f->act.session != flush->session))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return 1;	/* they stay folded */
	count = __sync_lock_test_and_set(&f->count, 0);
	if (!count) {
		bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
		return 0;
	}
	fill(e, &f->act);
	if (e->object != OBJECT_INET && e->object != OBJECT_SOCKET)
		e->object = OBJECT_SAME;
	e->fold = f->key;
	e->repeats = count - 1;
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
	return 0;
}

/*
 * Run by the daemon, with a session or 0: tells of acts that are no longer
 * repeated, and of all acts of the session, how often they were.
 */
SEC("syscall")
int flush_folds(__u64 *session)
{
	struct flush flush = { .now = bpf_ktime_get_boot_ns(), .session = *session };

	bpf_loop(FOLDS, flush_fold, &flush, 0);
	return 0;
}

#endif
