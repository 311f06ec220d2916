/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How a task gets its label: it descends from one that has a label, or it comes
 * into the sessions' cgroup, by whoever's hand. What no session is known for
 * gets a label that allows nothing.
 */
#ifndef BAILIFF_JOIN_BPF_H
#define BAILIFF_JOIN_BPF_H

/* A child has its parent's label, or is not born. */
SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *task, unsigned long clone_flags)
{
	struct label *l, *child;
	int rc = enter(&l);

	if (rc < 0)
		return -EACCES;
	/*
	 * Born in another cgroup, maybe a session's: its label is empty until its
	 * first hook, see enter(). Whoever did it is in no session: nothing fails for it.
	 */
	if (!rc) {
		if (clone_flags & CLONE_INTO_CGROUP)
			bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		return 0;
	}
	/* The cgroup programs would lose sight of it. */
	if (clone_flags & CLONE_INTO_CGROUP) {
		forbid(OP_NAMESPACE, l, 0, false);
		return -EPERM;
	}
	child = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!child)
		return -EPERM;
	copy_label(child, l);
	return 0;
}

/* The id of an ancestor of a cgroup, or of itself; 0: it is not as deep. */
static __always_inline __u64 ancestor_id(struct cgroup *cg, __u32 level)
{
	__u64 at = (__u64)cg + bpf_core_field_offset(struct cgroup, ancestors) + sizeof(void *) * level;
	struct cgroup *up = NULL;

	if ((__u32)BPF_CORE_READ(cg, level) < level || bpf_probe_read_kernel(&up, sizeof(up), (void *)at) || !up)
		return 0;
	return BPF_CORE_READ(up, kn, id);
}

/* Label a task that is in cg now, if that is in the sessions' cgroup. */
static __always_inline int join(struct task_struct *t, struct cgroup *cg)
{
	struct session *s;
	struct label *l;
	__u64 id;

	if (!parent_cgroup || ancestor_id(cg, fixed.session_level - 1) != parent_cgroup)
		return 0;
	id = ancestor_id(cg, fixed.session_level);
	l = bpf_task_storage_get(&labels, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!l)
		return 0;
	s = bpf_map_lookup_elem(&sessions, &id);
	if (!l->cgroup) {	/* a label binds, wherever a task is moved */
		l->cgroup = id ?: parent_cgroup;
		if (s) {
			l->agent = s->agent;
			l->session = s->session;
		}
	}
	if (s && l->session == s->session)
		bring_terminal(t, s->session);
	return 0;
}

/* Fires once for a process, with its leader: enter_late() has the other threads. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(cgroup_attach_task, struct cgroup *dst, const char *path, struct task_struct *task)
{
	struct cgroup *cg = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	return cg == dst ? join(task, cg) : 0;	/* else it is one of the old hierarchies */
}

#endif
