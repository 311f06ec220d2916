/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From an object to a state of the agent's path automaton.
 *
 * The components are collected from the leaf up to the host's root, across
 * mounts, and then run through the automaton from the root down. Only a walk
 * that ends at the dentry of the host's "/" counts: whatever the task made of
 * its own root, of detached or unmounted mounts and of descriptors is denied or
 * shows its true place.
 *
 * A mount that shows only a part of its filesystem (a bind mount) hides the
 * ancestors above that part; label.also is the state along the filesystem's own
 * route, and what is explicitly denied there stays denied.
 */
#ifndef BAILIFF_WALK_BPF_H
#define BAILIFF_WALK_BPF_H

#define MAX_STEPS (MAX_DEPTH + 8)	/* components and mounts crossed */
#define WALK_TRIES 16			/* before a path that keeps moving is denied */

/* From 6.2 on: an address becomes a pointer that may be read through directly, which costs a tenth of a probe read. */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define AT(type, address) \
	((struct type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(struct type)))

static __always_inline __u32 sequence_at(__u64 address)
{
	__u32 sequence = 1;

	if (address && bpf_rdonly_cast)
		return *(volatile __u32 *)&AT(seqcount, address)->sequence;
	if (!address || bpf_probe_read_kernel(&sequence, sizeof(sequence), (void *)address))
		return 1;
	return sequence;
}

/* Hash of a component whose dentry the verifier knows. */
static __always_inline __u64 hash_dentry(struct label *l, struct dentry *d)
{
	__u32 len = d->d_name.len;
	__u64 w[4];

	if (len < sizeof(w)) {
		if (bpf_core_field_exists(d->d_iname)) {
			const __u64 *name = (const __u64 *)d->d_iname;

			w[0] = name[0];
			w[1] = name[1];
			w[2] = name[2];
			w[3] = name[3];
		} else if (bpf_probe_read_kernel(w, sizeof(w), d->d_name.name)) {
			return 0;
		}
		return hash_short(w[0], w[1], w[2], w[3], len);
	}
	len &= MAX_NAME - 1;
	if (bpf_probe_read_kernel(l->name, len, d->d_name.name))
		return 0;
	return hash_long(l, len);
}

/* The same for a dentry that is only an address (beyond the first mount). */
static __always_inline __u64 hash_address(struct label *l, __u64 address)
{
	struct dentry *d = (struct dentry *)address;
	const unsigned char *name;
	__u32 len;

	if (bpf_rdonly_cast)
		return hash_dentry(l, AT(dentry, address));
	if (bpf_core_read(&len, sizeof(len), &d->d_name.len) ||
	    bpf_core_read(&name, sizeof(name), &d->d_name.name))
		return 0;
	if (len < 32) {
		__u64 w[4];

		if (bpf_probe_read_kernel(w, sizeof(w), name))
			return 0;
		return hash_short(w[0], w[1], w[2], w[3], len);
	}
	len &= MAX_NAME - 1;
	if (bpf_probe_read_kernel(l->name, len, name))
		return 0;
	return hash_long(l, len);
}

static __always_inline void put(struct label *l, __u32 n, __u64 hash, __u64 dentry)
{
	n &= MAX_DEPTH - 1;
	barrier_var(n);	/* keep the mask: the verifier needs it where the compiler doesn't */
	l->hash[n] = hash;
	l->dentry[n] = dentry;
}

static __always_inline __u32 nowhere(struct label *l, __u32 reason)
{
	l->reason = reason;
	return 0;
}

/*
 * A directory of procfs that belongs to a process of this session is called
 * "self" in policies. Its inode leads to a pid, that to a task, that to its
 * cgroup: nothing here trusts a name.
 */
__noinline int own_process(struct label *l, __u64 address)
{
	struct dentry *d = (struct dentry *)address;
	struct hlist_node *first = NULL;
	struct inode *inode = NULL;
	struct task_struct *task;
	struct proc_inode *pi;
	struct pid *pid = NULL;
	__u64 id = 0;

	if (!l)
		return false;
	bpf_core_read(&inode, sizeof(inode), &d->d_inode);
	if (!inode)
		return false;
	pi = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	bpf_core_read(&pid, sizeof(pid), &pi->pid);
	if (!pid)
		return false;
	bpf_core_read(&first, sizeof(first), &pid->tasks[0].first);
	if (!first)
		return false;
	task = (void *)first - bpf_core_field_offset(struct task_struct, pid_links[0]);
	id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	return id && id == l->cgroup;
}

static __always_inline void name_own_process(struct label *l, __u32 n, unsigned long magic)
{
	if (magic != PROC_SUPER_MAGIC || n == 0)
		return;
	if (own_process(l, l->dentry[(n - 1) & (MAX_DEPTH - 1)]))
		l->hash[(n - 1) & (MAX_DEPTH - 1)] = self_hash;
}

/* Where a climb is. Dentries and mounts are only addresses here. */
struct climb {
	struct label *label;
	__u64 dentry, root, mount;
	__u32 n;
	__u16 stop;	/* at the first root */
	__u16 done;
};

static __always_inline long give_up(struct climb *c, __u32 reason)
{
	c->label->reason = reason;
	c->done = 1;
	return 1;
}

/* From a mount's root to where it is mounted. */
static __always_inline long cross(struct climb *c)
{
	struct mount *m = (void *)c->mount - bpf_core_field_offset(struct mount, mnt), *parent;
	struct dentry *d = (struct dentry *)c->dentry;
	struct vfsmount *vfs;

	name_own_process(c->label, c->n, BPF_CORE_READ(d, d_sb, s_magic));
	if (bpf_core_read(&parent, sizeof(parent), &m->mnt_parent) ||
	    bpf_core_read(&c->dentry, sizeof(c->dentry), &m->mnt_mountpoint))
		return give_up(c, REASON_FAULT);
	if (parent == m)
		return give_up(c, REASON_OUTSIDE);
	vfs = (void *)parent + bpf_core_field_offset(struct mount, mnt);
	c->mount = (__u64)vfs;
	if (bpf_core_read(&c->root, sizeof(c->root), &vfs->mnt_root))
		return give_up(c, REASON_FAULT);
	return 0;
}

static long climb_step(__u32 i, struct climb *c)
{
	struct dentry *d = (struct dentry *)c->dentry;
	__u64 up;

	if (c->dentry == host_root || (c->stop && c->dentry == c->root)) {
		c->done = 1;
		return 1;
	}
	if (c->dentry == c->root)
		return cross(c);
	if (c->n >= MAX_DEPTH)
		return give_up(c, REASON_DEEP);
	if (bpf_rdonly_cast)
		up = (__u64)AT(dentry, c->dentry)->d_parent;
	else if (bpf_core_read(&up, sizeof(up), &d->d_parent))
		return give_up(c, REASON_FAULT);
	if (up == c->dentry) {
		if (c->n == 0)	/* a file in memory has a name, though no path */
			put(c->label, c->n++, 0, c->dentry);
		return give_up(c, REASON_OUTSIDE);
	}
	put(c->label, c->n, hash_address(c->label, c->dentry), c->dentry);
	c->n++;
	c->dentry = up;
	return 0;
}

/*
 * Go on from label.at in label.mount to the host's root, after n components.
 * Returns their number, or with label.reason set, of those that were there. (A
 * root that is the host's is 0 components, and no reason.)
 */
__noinline __u32 climb(struct label *l, __u32 n)
{
	struct climb c = { .label = l, .n = n };
	struct vfsmount *vfs;

	if (!l)
		return 0;
	c.dentry = l->at;
	c.mount = l->mount;
	vfs = (struct vfsmount *)c.mount;
	if (bpf_core_read(&c.root, sizeof(c.root), &vfs->mnt_root))
		return nowhere(l, REASON_FAULT);
	bpf_loop(MAX_STEPS, climb_step, &c, 0);
	if (!c.done && !l->reason)
		l->reason = REASON_DEEP;
	return c.n;
}

/* Append the components of the place where the filesystem with this s_dev is mounted. */
static __always_inline __u32 append_home(struct label *l, __u32 dev, __u32 n)
{
	struct home *home = bpf_map_lookup_elem(&homes, &dev);
	__u32 i;

	if (!home)
		return nowhere(l, REASON_OUTSIDE);
	for (i = 0; i < MAX_DEPTH; i++) {
		if (i >= home->depth)
			break;
		if (n >= MAX_DEPTH)
			return nowhere(l, REASON_DEEP);
		put(l, n, home->hash[i], 0);
		n++;
	}
	return n;
}

/*
 * Collect the components of label.leaf on its filesystem's own route: to the
 * superblock's root, and from there as the host has it. Same result as climb().
 */
__noinline __u32 climb_super(struct label *l)
{
	struct climb c = { .label = l, .stop = 1 };
	struct super_block *sb = NULL;
	struct dentry *d;
	__u32 dev = 0;

	if (!l)
		return 0;
	l->reason = REASON_RULE;
	c.dentry = l->leaf;
	d = (struct dentry *)c.dentry;
	bpf_core_read(&sb, sizeof(sb), &d->d_sb);
	if (bpf_core_read(&c.root, sizeof(c.root), &sb->s_root) || bpf_core_read(&dev, sizeof(dev), &sb->s_dev))
		return nowhere(l, REASON_FAULT);
	bpf_loop(MAX_STEPS, climb_step, &c, 0);
	if (!c.done && !l->reason)
		l->reason = REASON_DEEP;
	if (l->reason)
		return c.n;
	if (c.dentry == host_root)
		return c.n;
	name_own_process(l, c.n, BPF_CORE_READ(sb, s_magic));
	return append_home(l, dev, c.n);
}

/* The same within the first mount, where the verifier knows the dentries. */
struct collection {
	struct label *label;
	struct dentry *dentry, *root;
	__u32 n;
	__u32 done;
};

static long collect_step(__u32 i, struct collection *c)
{
	struct dentry *d = c->dentry, *up;

	if (d == c->root || (__u64)d == host_root) {
		c->done = 1;
		return 1;
	}
	if (c->n >= MAX_DEPTH)
		return 1;
	up = d->d_parent;
	if (up == d) {
		c->label->reason = REASON_OUTSIDE;
		return 1;
	}
	put(c->label, c->n, hash_dentry(c->label, d), (__u64)d);
	c->n++;
	c->dentry = up;
	return 0;
}

/* Collect the components of d as seen through mnt. Same result as climb(). */
static __always_inline __u32 collect(struct label *l, struct dentry *d, struct vfsmount *mnt)
{
	struct collection c = { .label = l, .dentry = d, .root = mnt->mnt_root };

	l->reason = REASON_RULE;
	bpf_loop(MAX_DEPTH + 1, collect_step, &c, 0);
	if (!c.done && !l->reason)
		l->reason = REASON_DEEP;
	l->at = (__u64)c.dentry;
	if (l->reason || l->at == host_root)
		return c.n;
	l->mount = (__u64)mnt;
	return climb(l, c.n);
}

/* Collect label.leaf as seen through label.view, again or from where only its address is known. */
static __always_inline __u32 collect_again(struct label *l)
{
	l->reason = REASON_RULE;
	l->at = l->leaf;
	l->mount = l->view;
	return climb(l, 0);
}

/* The state along the filesystem's own route, into label.also. */
static __always_inline void super_route(struct label *l, __u32 start)
{
	__u32 n = climb_super(l);

	l->also = l->reason ? 0 : run(l, start, n, 0);
	if (!l->also)
		l->state = 0;
}

/* Nothing moved while the walk was under way. */
static __always_inline bool unmoved(__u32 renames, __u32 mounts)
{
	if (!rename_lock_at)
		return true;
	return !(renames & 1) && !(mounts & 1) &&
	       sequence_at(rename_lock_at) == renames && sequence_at(mount_lock_at) == mounts;
}

static __always_inline bool shows_part(struct vfsmount *mnt)
{
	return BPF_CORE_READ(mnt, mnt_root) != BPF_CORE_READ(mnt, mnt_sb, s_root);
}

/* The path moved while it was walked: walk again. */
__noinline int resolve_again(struct label *l, __u32 start)
{
	__u32 renames, mounts, n, i;

	if (!l)
		return 0;
	for (i = 0; i < WALK_TRIES; i++) {
		renames = sequence_at(rename_lock_at);
		mounts = sequence_at(mount_lock_at);
		l->also = 0;
		n = collect_again(l);
		l->state = l->reason ? 0 : run(l, start, n, 0);
		if (l->state && shows_part((struct vfsmount *)l->view))
			super_route(l, start);
		if (unmoved(renames, mounts))
			return 0;
	}
	l->state = 0;
	l->also = 0;
	l->reason = REASON_RACE;
	return 0;
}

/* step() for a known dentry, without the hash where no edge has a name of that length. */
static __always_inline void leaf_step(struct label *l, __u32 dir, struct dentry *d)
{
	struct state *s = bpf_map_lookup_elem(&states, &dir);

	if (s && !s->glob && !(s->lengths >> (d->d_name.len & 63) & 1)) {
		l->state = s->next;
		return;
	}
	put(l, 0, hash_dentry(l, d), (__u64)d);
	l->state = step(l, dir, l->hash[0], l->dentry[0]);
}

/* The first walk, by the cache where it knows the directory. */
static __always_inline void resolve_once(struct label *l, struct dentry *d, struct vfsmount *mnt, __u32 start,
					 __u32 renames, __u32 mounts)
{
	__u64 tag = 0;
	__u32 n, dir;

	l->also = 0;
	l->state = 0;
	l->reason = REASON_RULE;
	if (d != mnt->mnt_root) {
		tag = cache_tag(l, d->d_parent, mnt, start, renames, mounts);
		dir = tag ? cache_get(tag) : 0;
		if (dir) {
			leaf_step(l, dir, d);
			return;
		}
	}
	n = collect(l, d, mnt);
	if (l->reason)
		return;
	if (tag && n && cacheable(d->d_parent, mnt)) {
		dir = run(l, start, n, 1);
		cache_put(tag, dir);
		l->state = step(l, dir, l->hash[0], l->dentry[0]);
	} else {
		l->state = run(l, start, n, 0);
	}
	if (mnt->mnt_root != mnt->mnt_sb->s_root)
		super_route(l, start);
}

/* Address of the object, as a number: the verifier lets no known pointer go to a global function. */
static __always_inline __u64 object_at(struct label *l)
{
	return *(volatile __u64 *)&l->leaf;
}

/* Make d, seen through mnt, the object. */
static __always_inline void look_at(struct label *l, struct dentry *d, struct vfsmount *mnt)
{
	l->leaf = (__u64)d;
	l->view = (__u64)mnt;
}

/*
 * The state of object d, seen through mnt, in label.state and label.also.
 * State 0 with label.reason says why there is none.
 */
static __noinline int resolve(struct label *l, struct dentry *d, struct vfsmount *mnt, __u32 start)
{
	__u32 renames = sequence_at(rename_lock_at);
	__u32 mounts = sequence_at(mount_lock_at);

	look_at(l, d, mnt);
	resolve_once(l, d, mnt, start, renames, mounts);
	if (!unmoved(renames, mounts))
		resolve_again(l, start);
	return 0;
}

#endif
