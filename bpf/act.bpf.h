/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An act of a session, from the first look at it to its event.
 */
#ifndef BAILIFF_ACT_BPF_H
#define BAILIFF_ACT_BPF_H

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
	__u32 repeats;
	__u64 fold;
	__u32 peer;
	__u16 family;
	__u16 type;
	__u8 address[16];
};

/* An act that is being repeated: value of the map of the same. */
struct fold {
	__u64 key;		/* 0: nothing yet; FOLD_CHANGES: changing hands */
	__u64 until;		/* when the next one is told again */
	__u64 count;		/* since the last one that was told */
	struct act act;
};

#endif
