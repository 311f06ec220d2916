/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Grants: access of one session until a deadline of the boot clock, or for so
 * many uses. They are asked for what the agent's policies say nothing about, so
 * that no explicit line and no guardrail is ever overridden. Nobody has to end
 * one: past its deadline it is not found.
 */
#ifndef BAILIFF_GRANT_BPF_H
#define BAILIFF_GRANT_BPF_H

static __always_inline struct grant *live_grant(__u32 number, __u64 session)
{
	struct grant *g = bpf_map_lookup_elem(&grants, &number);

	if (!g || !number || g->session != session)
		return NULL;
	return bpf_ktime_get_boot_ns() < *(volatile __u64 *)&g->deadline ? g : NULL;
}

/* The first live grant of a place that gives all of access, and has a use left where one is wanted; 0: none. */
__noinline __u32 grant_at(struct grants_at *at, __u64 session, __u32 access, __u32 use)
{
	struct grant *g;
	__u32 i;

	if (!at)
		return 0;
	for (i = 0; i < GRANTS_AT; i++) {
		if (!at->number[i])
			break;
		if (access & ~at->access[i])
			continue;
		g = live_grant(at->number[i], session);
		if (g && !(use && g->flags & GRANT_COUNTED && g->uses <= 0))
			return at->number[i];
	}
	return 0;
}

/* Of the LSM programs of two builds, both of which judge a call, one takes the use. */
static __always_inline void leave_use(struct act *a)
{
	if (others_turn(VERDICT_ALLOW))
		a->held = 1;
}

/* Takes a use. False: there is none left. */
static __always_inline bool take_use(__u32 number)
{
	struct grant *g = bpf_map_lookup_elem(&grants, &number);

	if (!g)
		return false;
	if (!(g->flags & GRANT_COUNTED))
		return true;
	if (__sync_fetch_and_add(&g->uses, -1) > 0)
		return true;
	__sync_fetch_and_add(&g->uses, 1);
	return false;
}

/* A look for grants on the way from the root to an object. */
struct descent {
	struct label *label;
	struct grant_path_key place;
	__u32 n;		/* components */
	__u32 grant;
	__u8 access;
	__u8 use;
};

static __always_inline bool grants_here(struct descent *d)
{
	struct grants_at *at = bpf_map_lookup_elem(&grant_paths, &d->place);

	d->grant = at ? grant_at(at, d->place.session, d->access, d->use) : 0;
	return d->grant;
}

static long descend(__u32 i, struct descent *d)
{
	__u32 at = (d->n - 1 - i) & (MAX_DEPTH - 1);

	d->place.hash = mix(d->place.hash, d->label->hash[at]);
	return grants_here(d);
}

/* The live grant that gives access to the object of label.leaf and label.view (0: of no known mount); 0: none. */
static __always_inline __u32 grant_for_path(struct label *l, __u32 access, __u32 use)
{
	struct descent d = { .label = l, .access = access, .use = use };

	d.n = l->view ? collect_again(l) : climb_super(l);
	if (l->reason)
		return 0;
	d.place.session = l->session;
	d.place.hash = fixed.cache_key[0];
	if (!grants_here(&d))
		bpf_loop(d.n, descend, &d, 0);
	return d.grant;
}

static __always_inline bool has_grants(__u64 cgroup)
{
	struct session *s = bpf_map_lookup_elem(&sessions, &cgroup);

	return s && s->grants;
}

/* Let a grant of the session give what a->missing says, if it has one that does. */
__noinline int ask_path_grant(struct label *l, struct act *a)
{
	__u32 renames, mounts, number = 0, i;

	if (!l || !a || !a->missing || !has_grants(l->cgroup))
		return 0;
	leave_use(a);
	for (i = 0; i < WALK_TRIES; i++) {
		renames = sequence_at(rename_lock_at);
		mounts = sequence_at(mount_lock_at);
		number = grant_for_path(l, a->missing, !a->held);
		if (unmoved(renames, mounts))
			break;
		number = 0;
	}
	if (!number || (!a->held && !take_use(number)))
		return 0;
	a->grant = number;
	a->verdict = VERDICT_ALLOW;
	a->reason = REASON_GRANT;
	return 1;
}

static __always_inline grant_name name_of_grant(__u32 number)
{
	struct grant *g = bpf_map_lookup_elem(&grants, &number);

	return g ? (grant_name)g->serial << 32 | number : 0;
}

/* The grant of that name, if it is not over. */
static __always_inline struct grant *named_grant(grant_name name, __u64 session)
{
	struct grant *g = live_grant((__u32)name, session);

	return g && g->serial == name >> 32 ? g : NULL;
}

static __always_inline bool vacant(__u64 cgroup)
{
	return !cgroup || !bpf_map_lookup_elem(&sessions, &cgroup);
}

/* Remember that the session opened a file under a grant. False: there is no room for it. */
__noinline int note_granted(struct granted_file *open, __u64 cgroup, __u32 number)
{
	__u64 was;
	__u32 i;

	if (!open)
		return false;
	for (i = 0; i < GRANTED_TO; i++)
		if (open->cgroup[i] == cgroup) {
			open->grant[i] = name_of_grant(number);
			return true;
		}
	for (i = 0; i < GRANTED_TO; i++) {
		was = open->cgroup[i];
		if (vacant(was) && __sync_val_compare_and_swap(&open->cgroup[i], was, cgroup) == was) {
			open->grant[i] = name_of_grant(number);
			return true;
		}
	}
	return false;
}

/* The grant under which the session opened a file; 0: it did not. */
__noinline __u64 granted_to(struct granted_file *open, __u64 cgroup)
{
	__u32 i;

	if (!open)
		return 0;
	for (i = 0; i < GRANTED_TO; i++)
		if (open->cgroup[i] == cgroup)
			return open->grant[i];
	return 0;
}

/* Note a mapping of a file of a grant that kills at its end. False: there is no room. */
__noinline int note_mapping(__u64 session, __u64 name)
{
	struct mapped *m = bpf_map_lookup_elem(&mappings, &session), first = {};
	__u64 was;
	__u32 i;

	if (!m) {
		bpf_map_update_elem(&mappings, &session, &first, BPF_NOEXIST);
		m = bpf_map_lookup_elem(&mappings, &session);
	}
	if (!m)
		return false;
	for (i = 0; i < MAPPED_GRANTS; i++) {
		was = __sync_val_compare_and_swap(&m->grant[i], 0, name);
		if (!was || was == name)
			return true;
	}
	return false;
}

/* Kill the current process if its session has mapped a file of a grant that kills at its end, and is over. */
__noinline int reap(__u64 session)
{
	struct mapped *m = bpf_map_lookup_elem(&mappings, &session);
	__u32 i;

	if (!m)
		return 0;
	for (i = 0; i < MAPPED_GRANTS; i++) {
		if (!m->grant[i])
			break;
		if (!named_grant(m->grant[i], session)) {
			bpf_send_signal(SIGKILL);
			return 1;
		}
	}
	return 0;
}

/* The live grant of a session for an address; 0: none. */
__noinline __u32 grant_for_address(__u64 session, struct endpoint *e, __u32 use)
{
	struct grant_net_key key = { .prefixlen = 8 * (sizeof(key) - sizeof(key.prefixlen)) };
	struct grants_at *at;
	__u32 number, i;

	if (!e)
		return 0;
	key.session[0] = (__u32)session;
	key.session[1] = session >> 32;
	key.family = is_mapped(e->address) ? 4 : 6;
	key.protocol = e->protocol;
	key.port = bpf_htons(e->port);
	for (i = 0; i < sizeof(key.address); i++)
		key.address[i] = e->address[i];
	at = bpf_map_lookup_elem(&grant_nets, &key);
	number = at ? grant_at(at, session, 0, use) : 0;
	if (number)
		return number;
	key.port = 0;
	at = bpf_map_lookup_elem(&grant_nets, &key);
	return at ? grant_at(at, session, 0, use) : 0;
}

/*
 * Let a grant give what the tables say nothing about. Whoever is the last to
 * judge takes the use.
 */
static __always_inline bool ask_address_grant(__u64 cgroup, __u64 session, struct endpoint *e, struct act *a, bool take)
{
	__u32 number;

	if (a->verdict == VERDICT_ALLOW || a->reason != REASON_DEFAULT || e->inbound || !has_grants(cgroup))
		return false;
	number = grant_for_address(session, e, !a->held);
	if (!number || (take && !take_use(number)))
		return false;
	a->grant = number;
	a->verdict = VERDICT_ALLOW;
	a->reason = REASON_GRANT;
	return true;
}

#endif
