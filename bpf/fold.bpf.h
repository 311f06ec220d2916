/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counting acts, and choosing those that are told. An act that is repeated is
 * told once a second, with how often; an agent that tells of too many different
 * ones is not heard for a while, so that no flood of one hides what another did.
 * Every act is counted, told or not.
 */
#ifndef BAILIFF_FOLD_BPF_H
#define BAILIFF_FOLD_BPF_H

#define FOLD_CHANGES 1
#define FOLD_NS 1000000000ULL	/* an act that is repeated is told so often */
#define FOLD_TRIES 4	/* slots that an act may be in */
#define REFILL_NS 10000000ULL

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

static __always_inline void count_drop(const struct act *a)
{
	__u32 agent = a->agent;
	struct counters *c = bpf_map_lookup_elem(&counts, &agent);

	if (c)
		c->dropped += 1 + a->repeats;
}

/* Takes one of the events that the agent may tell. False: there is none left. */
static __always_inline bool take_token(__u32 agent)
{
	struct budget *b = bpf_map_lookup_elem(&budgets, &agent);
	__u64 now = bpf_ktime_get_boot_ns(), last, since, most = *(volatile __u64 *)&tell_burst;
	__u64 tokens;

	/* The second half of the ring is for those that have little in it. */
	if (!b || (b->told - *(volatile __u64 *)&b->read >= ring_share &&
		   bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2))
		return false;
	last = b->refilled;
	since = now - last;
	if (since > REFILL_NS && __sync_val_compare_and_swap(&b->refilled, last, now) == last) {
		if (since > 1000 * FOLD_NS)
			since = 1000 * FOLD_NS;
		tokens = (b->tokens < 0 ? 0 : b->tokens) + since * *(volatile __u64 *)&tell_rate / 1000000000;
		b->tokens = tokens < most ? tokens : most;
	}
	if (__sync_fetch_and_add(&b->tokens, -1) <= 0) {
		__sync_fetch_and_add(&b->tokens, 1);
		return false;
	}
	__sync_fetch_and_add(&b->told, 1);
	return true;
}

/* Whether f is about the act: then it is one more of them (told: false), or the first in a second (true). */
static __always_inline bool same_act(struct fold *f, struct act *a, __u64 key, __u64 now, bool *told)
{
	__u64 until = *(volatile __u64 *)&f->until;

	if (f->key != key)
		return false;
	*told = now >= until && __sync_val_compare_and_swap(&f->until, until, now + FOLD_NS) == until;
	if (*told) {
		a->fold = key;
		a->repeats = __sync_lock_test_and_set(&f->count, 0);
	} else {
		__sync_fetch_and_add(&f->count, 1);
	}
	return true;
}

/* Make f about the act, if what it was about is over and all told. */
static __always_inline bool new_act(struct fold *f, struct act *a, __u64 key, __u64 now)
{
	__u64 was = f->key;

	if (now < *(volatile __u64 *)&f->until || f->count || was == FOLD_CHANGES ||
	    __sync_val_compare_and_swap(&f->key, was, FOLD_CHANGES) != was)
		return false;
	f->act = *a;
	f->until = now + FOLD_NS;
	a->fold = key;
	*(volatile __u64 *)&f->key = key;
	return true;
}

static __always_inline struct fold *fold_at(__u64 key, __u32 i)
{
	__u32 slot = (key + i) & (FOLDS - 1);

	return bpf_map_lookup_elem(&folds, &slot);
}

/* Whether the act is one more of the same, and need not be told. Where no slot is free it is told. */
static __always_inline bool one_more(struct act *a, __u64 key)
{
	__u64 now = bpf_ktime_get_boot_ns();
	bool told = false;
	struct fold *f;
	__u32 i;

	for (i = 0; i < FOLD_TRIES; i++) {
		f = fold_at(key, i);
		if (f && same_act(f, a, key, now, &told))
			return !told;
	}
	for (i = 0; i < FOLD_TRIES; i++) {
		f = fold_at(key, i);
		if (f && new_act(f, a, key, now))
			return false;
	}
	return false;
}

/* Everything about an act but its object's path. */
__noinline __u64 identity_of(struct act *a)
{
	const __u64 *address;
	__u64 h;

	if (!a)
		return 0;
	address = (const __u64 *)a->address;
	h = mix(fixed.cache_key[0], a->session);
	h = mix(h, a->agent | (__u64)a->operation << 32 | (__u64)a->verdict << 40 | (__u64)a->reason << 48 | (__u64)a->access << 56);
	h = mix(h, a->rule | (__u64)a->grant << 32);
	h = mix(h, a->peer | (__u64)a->port << 32 | (__u64)a->protocol << 48);
	h = mix(h, a->family | (__u64)a->type << 16);
	h = mix(h, address[0]);
	return mix(h, address[1]);
}

/*
 * Whether the act is to be told; if not, that is counted. Programs that come
 * about are told each time.
 */
__noinline int worth_telling(struct act *a, __u64 identity)
{
	__u64 key = identity < 2 ? 2 : identity;

	if (!a)
		return false;
	if (!(a->operation == OP_EXEC && a->verdict == VERDICT_ALLOW) && one_more(a, key))
		return false;
	if (take_token(a->agent))
		return true;
	count_drop(a);
	return false;
}

#endif
