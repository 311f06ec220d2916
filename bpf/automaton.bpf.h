/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The path automaton: from collected components to a state; see policy.Automaton.
 */
#ifndef BAILIFF_AUTOMATON_BPF_H
#define BAILIFF_AUTOMATON_BPF_H

#define NAME_LOADED 1	/* in place of a dentry's address: the name is in label.name */
#define NAME_SELF 2	/* the same: a process of the session, which patterns see as "self" too */

struct glob_run {
	struct label *label;
	__u32 node;
};

static long glob_byte(__u32 i, struct glob_run *run)
{
	unsigned char byte = run->label->name[i & (MAX_NAME - 1)];
	struct glob_node *node = bpf_map_lookup_elem(&globs, &run->node);

	if (!node) {
		run->node = 0;
		return 1;
	}
	run->node = node->next[byte];
	return run->node == 0;
}

/* Load a component's name into label.name. Returns its length, 0 on a fault. */
static __always_inline __u32 load_name(struct label *l, __u64 dentry)
{
	struct dentry *d = (struct dentry *)dentry;
	const unsigned char *name = NULL;
	__u32 len = 0;

	bpf_core_read(&len, sizeof(len), &d->d_name.len);
	bpf_core_read(&name, sizeof(name), &d->d_name.name);
	len &= MAX_NAME - 1;
	return bpf_probe_read_kernel(l->name, len, name) ? 0 : len;
}

static __always_inline __u32 load_self(struct label *l)
{
	l->name[0] = 's';
	l->name[1] = 'e';
	l->name[2] = 'l';
	l->name[3] = 'f';
	return 4;
}

/*
 * The class that the byte automaton, from node on, gives the component of a
 * dentry (or, where that is NAME_LOADED, the label.bytes in label.name); 0: none.
 */
__noinline __u32 glob_class(struct label *l, __u32 node, __u64 dentry)
{
	struct glob_run run = { .label = l, .node = node };
	struct glob_node *end;
	__u32 len;

	if (!l || !dentry)
		return 0;
	if (dentry == NAME_LOADED)
		len = l->bytes & (MAX_NAME - 1);
	else
		len = dentry == NAME_SELF ? load_self(l) : load_name(l, dentry);
	bpf_loop(len, glob_byte, &run, 0);
	end = bpf_map_lookup_elem(&globs, &run.node);
	return end ? end->class : 0;
}

/* One transition. Returns 0, the state that denies everything, on doubt. */
__noinline __u32 step(struct label *l, __u32 from, __u64 hash, __u64 dentry)
{
	struct state *s = bpf_map_lookup_elem(&states, &from);
	struct edge key = { .hash = hash, .state = from };
	__u32 *to;

	if (!l || !s)
		return 0;
	if (s->flags & STATE_EDGES) {
		to = bpf_map_lookup_elem(&edges, &key);
		if (to)
			return *to;
	}
	if (s->glob) {
		key.hash = 0;
		key.class = glob_class(l, s->glob, dentry && hash == self_hash ? NAME_SELF : dentry);
		if (key.class) {
			to = bpf_map_lookup_elem(&edges, &key);
			return to ? *to : 0;
		}
	}
	return s->next;
}

/* The state after components n-1 down to last. */
__noinline __u32 run(struct label *l, __u32 state, __u32 n, __u32 last)
{
	__u32 i, at;

	if (!l)
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		if (i + last >= n)
			break;
		at = (n - 1 - i) & (MAX_DEPTH - 1);
		state = step(l, state, l->hash[at], l->dentry[at]);
	}
	return state;
}

#endif
