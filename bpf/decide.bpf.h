/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one allow or deny decision about a path, and the way into every hook.
 */
#ifndef BAILIFF_DECIDE_BPF_H
#define BAILIFF_DECIDE_BPF_H

/* A task without a label is denied, and told of, if it is in a session's cgroup. */
__noinline int deny_unlabelled(__u64 cgroup)
{
	struct act a = { .kind = KIND_GUARD, .verdict = VERDICT_DENY, .reason = REASON_NO_LABEL };
	struct session *s = bpf_map_lookup_elem(&sessions, &cgroup);

	if (!s)
		return 0;
	by_session(&a, s, *(volatile __u64 *)&generation);
	tell(&a, NULL);
	return -EACCES;
}

/*
 * A task without a label of its own: a thread of a process that came into the
 * sessions' cgroup has its leader's. Storage may also be somebody else's, or
 * (6.1) a lookup that found it busy: the cgroup tells. 1: it has a label now;
 * 0: not confined; less: denied.
 */
__noinline int enter_late(void)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct label *leader = bpf_task_storage_get(&labels, t->group_leader, 0, 0), *own;

	if (!leader)
		return deny_unlabelled(bpf_get_current_ancestor_cgroup_id(fixed.session_level));
	own = bpf_task_storage_get(&labels, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!own)
		return -EACCES;
	copy_label(own, leader);
	return 1;
}

/*
 * Whether the current task, which has an empty label, is in the sessions' cgroup:
 * then it is of the session there. If not it loses the label, and costs no more
 * than others: service managers start all that they start so.
 */
__noinline int enter_born(struct label *l)
{
	__u64 id = bpf_get_current_ancestor_cgroup_id(fixed.session_level);
	struct session *s;

	if (!l)
		return 0;
	if (!parent_cgroup || bpf_get_current_ancestor_cgroup_id(fixed.session_level - 1) != parent_cgroup) {
		bpf_task_storage_delete(&labels, bpf_get_current_task_btf());
		return 0;
	}
	s = bpf_map_lookup_elem(&sessions, &id);
	if (s) {
		l->agent = s->agent;
		l->session = s->session;
	}
	l->cgroup = id ?: parent_cgroup;
	return 1;
}

/* The label of the current task, in *label: 0: not confined; 1: confined; less: denied. */
static __always_inline int enter(struct label **label)
{
	struct task_struct *t = bpf_get_current_task_btf();
	int rc;

	if (!t->bpf_storage && !t->group_leader->bpf_storage)
		return 0;
	*label = bpf_task_storage_get(&labels, t, 0, 0);
	if (!*label) {
		rc = enter_late();
		if (rc <= 0)
			return rc < 0 ? -EACCES : 0;
		*label = bpf_task_storage_get(&labels, t, 0, 0);
		if (!*label)
			return -EACCES;
	}
	if (!(*label)->cgroup && !enter_born(*label))
		return 0;
	(*label)->generation = *(volatile __u64 *)&generation;
	return 1;
}

/* Deny what no session may do, whatever its policy. */
static __noinline int forbid(__u8 operation, struct label *l, __u32 peer, bool quiet)
{
	struct act a = {
		.operation = operation, .kind = KIND_GUARD, .verdict = VERDICT_DENY,
		.reason = REASON_PRIVILEGE, .peer = peer, .object = peer ? OBJECT_TASK : OBJECT_NONE,
	};

	by_task(&a, l);
	if (!quiet)
		tell(&a, l);
	return -EPERM;
}

static __always_inline struct agent *agent_of(__u32 number)
{
	return bpf_map_lookup_elem(&agents, &number);
}

/* Audit mode lets through what no guardrail forbids. */
static __always_inline bool only_watch(struct agent *agent, __u64 generation, bool guarded)
{
	return agent && !guarded && (agent->flags[generation & 1] & AGENT_AUDIT);
}

/* The same where it can't be told what a guardrail would say. */
static __always_inline bool only_watch_unknown(struct agent *agent, __u64 generation)
{
	return only_watch(agent, generation, agent && (agent->flags[generation & 1] & AGENT_GUARDED));
}

static __always_inline __u32 lowest(__u8 access)
{
	__u32 i;

	for (i = 0; i < ACCESS_COUNT - 1; i++)
		if (access & 1 << i)
			break;
	return i;
}

/* Weigh label.state and label.also against a->access; fills a's verdict, rule and reason. */
static __always_inline void weigh(struct label *l, struct agent *agent, struct act *a)
{
	struct state *s, *also;
	__u8 missing;

	s = bpf_map_lookup_elem(&states, &l->state);
	/* By far the most frequent, and not told: nobody asks for the rule. */
	if (a->operation == OP_OPEN && l->state && !l->also && s && !(a->access & ~s->allow)) {
		a->verdict = VERDICT_ALLOW;
		return;
	}
	also = bpf_map_lookup_elem(&states, &l->also);
	if (!l->state || !s || !also) {
		a->reason = l->session ? l->reason ?: REASON_FAULT : REASON_NO_SESSION;
		a->rule = 0;
		a->verdict = only_watch_unknown(agent, l->generation) ? VERDICT_AUDIT : VERDICT_DENY;
		return;
	}
	missing = a->access & ~s->allow;
	/* What a guardrail denies on the other route also outweighs what the policy only watches on this one. */
	if (l->also && (!missing || (a->access & also->guard && !(missing & s->guard)))) {
		missing = a->access & also->deny;
		s = missing ? also : s;
	}
	a->verdict = VERDICT_ALLOW;
	if (missing && !(missing & (s->deny | s->guard)))
		a->missing = missing;
	if (missing)
		a->verdict = only_watch(agent, l->generation, missing & s->guard) ? VERDICT_AUDIT : VERDICT_DENY;
	a->rule = s->rule[lowest(missing ?: a->access)];
	a->reason = a->rule ? REASON_RULE : REASON_DEFAULT;
}

/* The same, and where that allows nothing, a grant. */
static __always_inline void settle(struct label *l, struct agent *agent, struct act *a)
{
	weigh(l, agent, a);
	if (a->verdict != VERDICT_ALLOW && a->missing)
		ask_path_grant(l, a);
}

/* When a decision that is to be timed began; 0 for the others. */
static __always_inline __u64 sample(struct label *l)
{
	return l->decisions++ & (SAMPLE_EVERY - 1) ? 0 : bpf_ktime_get_ns();
}

__noinline int time_decision(__u64 began)
{
	__u64 ns = bpf_ktime_get_ns() - began;
	__u32 zero = 0, i;
	struct latency *latency = bpf_map_lookup_elem(&latencies, &zero);

	if (!latency)
		return 0;
	latency->sum += ns;
	for (i = 0; i < LATENCY_BUCKETS - 1; i++)
		if (ns < 64ULL << i)
			break;
	latency->buckets[i]++;
	return 0;
}

/* Judge one path; tells unless it is allowed. */
static __noinline int judge(struct label *l, struct act *a, struct dentry *d, struct vfsmount *mnt)
{
	struct agent *agent = agent_of(l->agent);
	__u32 start = agent ? agent->start[l->generation & 1] : 0;
	__u64 began = sample(l);

	resolve(l, d, mnt, start);
	settle(l, agent, a);
	if (began)
		time_decision(began);
	if (a->verdict == VERDICT_ALLOW && !(a->grant && !a->held)) {
		if (a->operation != OP_EXEC)	/* an exec that comes about is told, and counted then */
			count_allowed(l, a->kind);
		return 0;
	}
	by_task(a, l);
	tell_path(l, a, object_at(l), 0);
	return a->verdict == VERDICT_DENY ? -EACCES : 0;
}

#define KEPT (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_CONNECT) /* rights on an object, not on its name */

/*
 * May the object at the old name get the new one? Only where nothing under the
 * new name can be wider than under the old: the same state, or one whose
 * widest right is within the old one's narrowest.
 */
static __always_inline bool wider(__u32 old, __u32 new, bool directory)
{
	struct state *from, *to;

	if (old == new)
		return false;
	from = bpf_map_lookup_elem(&states, &old);
	to = bpf_map_lookup_elem(&states, &new);
	if (!from || !to)
		return true;
	if (directory)
		return to->any & ~from->all;
	return to->allow & ~from->allow & KEPT;
}

/* The same along the filesystem's own route, where only what is explicitly denied counts. */
static __always_inline bool wider_also(__u32 old, __u32 new, bool directory)
{
	struct state *from, *to;

	if (old == new)
		return false;
	from = bpf_map_lookup_elem(&states, &old);
	to = bpf_map_lookup_elem(&states, &new);
	return directory || !from || !to || from->deny & ~to->deny & KEPT;
}

/* The same where only guardrails deny. */
static __always_inline bool unguarded(__u32 old, __u32 new, bool directory)
{
	struct state *from, *to;

	if (old == new)
		return false;
	from = bpf_map_lookup_elem(&states, &old);
	to = bpf_map_lookup_elem(&states, &new);
	if (!from || !to)
		return true;
	return directory ? from->any_guard : from->guard & ~to->guard & KEPT;
}

/* The verdict on a move by the states of its names; an exchange moves both ways, maybe directories. */
static __noinline int weigh_move(struct label *l, bool directory, bool exchange)
{
	struct agent *agent = agent_of(l->agent);
	__u32 old = l->old_state, old_also = l->old_also, new = l->state, also = l->also;

	if (only_watch(agent, l->generation, false) &&
	    (unguarded(old, new, directory) || unguarded(old_also, also, directory) ||
	     (exchange && (unguarded(new, old, true) || unguarded(also, old_also, true)))))
		return VERDICT_DENY;
	if (wider(old, new, directory) || wider_also(old_also, also, directory) ||
	    (exchange && (wider(new, old, true) || wider_also(also, old_also, true))))
		return only_watch(agent, l->generation, false) ? VERDICT_AUDIT : VERDICT_DENY;
	return VERDICT_ALLOW;
}

/* Judge the new name of a move, once the old one is judged; fills a's verdict, rule and reason. */
static __always_inline void judge_new(struct label *l, struct agent *agent, struct act *a, struct dentry *new,
				      struct vfsmount *mnt, __u32 start, bool directory)
{
	int verdict;

	l->old_state = l->state;
	l->old_also = l->also;
	/* What is only watched at the old name may still be forbidden at the new one. */
	l->old_access = a->verdict == VERDICT_AUDIT ? a->access : 0;
	l->old_rule = a->rule;
	l->old_reason = a->reason;
	a->access = a->access_new;
	resolve(l, new, mnt, start);
	a->missing = 0;
	settle(l, agent, a);
	if (a->verdict == VERDICT_DENY)
		return;
	verdict = weigh_move(l, directory, a->exchange);
	if (a->grant)
		a->reason = REASON_GRANT;
	if (verdict != VERDICT_ALLOW) {
		a->verdict = verdict;
		a->reason = REASON_WIDER;
		a->rule = 0;
		a->grant = 0;
	} else if (a->verdict == VERDICT_ALLOW && l->old_access) {
		a->verdict = VERDICT_AUDIT;
		a->access = l->old_access;
		a->rule = l->old_rule;
		a->reason = l->old_reason;
	}
}

/*
 * Judge a rename or a link: a->access at the old name, a->access_new at the new
 * one, and no wider rights there. Tells unless it is allowed.
 */
static __noinline int judge_move(struct label *l, struct act *a, struct dentry *old, struct dentry *new,
				 struct vfsmount *mnt)
{
	struct agent *agent = agent_of(l->agent);
	__u32 start = agent ? agent->start[l->generation & 1] : 0;
	struct inode *inode = old->d_inode;
	__u64 first;

	resolve(l, old, mnt, start);
	settle(l, agent, a);
	first = object_at(l);
	if (a->verdict != VERDICT_DENY)
		judge_new(l, agent, a, new, mnt, start, !inode || S_ISDIR(inode->i_mode));
	if (a->verdict == VERDICT_ALLOW && !a->grant) {
		count_allowed(l, a->kind);
		return 0;
	}
	by_task(a, l);
	look_at(l, new, mnt);
	tell_path(l, a, first, object_at(l));
	return a->verdict == VERDICT_DENY ? -EACCES : 0;
}

#endif
