/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keyed hash of a path component: SipHash-1-3 (Aumasson and Bernstein, 2012).
 * It is keyed because an agent chooses the names of its files: nobody who does
 * not know the key can make two names with one hash. hash.go is its other half.
 */
#ifndef BAILIFF_HASH_BPF_H
#define BAILIFF_HASH_BPF_H

struct sip {
	__u64 v0, v1, v2, v3;
};

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static __always_inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = ROTL(s->v1, 13) ^ s->v0;
	s->v0 = ROTL(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = ROTL(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = ROTL(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = ROTL(s->v1, 17) ^ s->v2;
	s->v2 = ROTL(s->v2, 32);
}

static __always_inline void sip_start(struct sip *s)
{
	s->v0 = fixed.hash_key[0] ^ 0x736f6d6570736575ULL;
	s->v1 = fixed.hash_key[1] ^ 0x646f72616e646f6dULL;
	s->v2 = fixed.hash_key[0] ^ 0x6c7967656e657261ULL;
	s->v3 = fixed.hash_key[1] ^ 0x7465646279746573ULL;
}

static __always_inline void sip_word(struct sip *s, __u64 word)
{
	s->v3 ^= word;
	sip_round(s);
	s->v0 ^= word;
}

/* rest holds the len % 8 bytes after the last full word; what lies above them is masked off. */
static __always_inline __u64 sip_end(struct sip *s, __u64 rest, __u32 len)
{
	__u32 bits = 8 * (len & 7);

	rest &= (1ULL << bits) - 1;
	sip_word(s, rest | (__u64)len << 56);
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/*
 * Up to 31 bytes, in four words of which the bytes after len may be anything.
 * This and all functions here that are not static are verified once, not at
 * every call: the walk's loops would not load otherwise.
 */
__noinline __u64 hash_short(__u64 w0, __u64 w1, __u64 w2, __u64 w3, __u32 len)
{
	__u64 rest = w0;
	struct sip s;

	sip_start(&s);
	if (len >= 8) {
		sip_word(&s, w0);
		rest = w1;
	}
	if (len >= 16) {
		sip_word(&s, w1);
		rest = w2;
	}
	if (len >= 24) {
		sip_word(&s, w2);
		rest = w3;
	}
	return sip_end(&s, rest, len);
}

/* Any component, in memory of MAX_NAME bytes. */
__noinline __u64 hash_long(struct label *l, __u32 len)
{
	__u32 full = (len & (MAX_NAME - 1)) / 8, i;
	const __u64 *w;
	struct sip s;

	if (!l)
		return 0;
	w = (const __u64 *)l->name;
	sip_start(&s);
	for (i = 0; i < MAX_NAME / 8 - 1; i++) {
		if (i >= full)
			break;
		sip_word(&s, w[i]);
	}
	return sip_end(&s, w[full & (MAX_NAME / 8 - 1)], len & (MAX_NAME - 1));
}

#endif
