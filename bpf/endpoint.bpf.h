/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One end of a connection: address and port in one form for IPv4 and IPv6.
 */
#ifndef BAILIFF_ENDPOINT_BPF_H
#define BAILIFF_ENDPOINT_BPF_H

struct endpoint {
	__u8 address[16];	/* IPv4 is mapped */
	__u16 port;		/* host order */
	__u8 protocol;
	__u8 inbound;		/* the local end, to be listened on */
};

static __always_inline void map4(struct endpoint *e, __be32 address)
{
	__builtin_memset(e->address, 0, 10);
	e->address[10] = 0xff;
	e->address[11] = 0xff;
	__builtin_memcpy(&e->address[12], &address, 4);
}

static __always_inline bool is_mapped(const __u8 *a)
{
	const __u32 *w = (const __u32 *)a;

	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_loopback(const __u8 *a)
{
	const __u32 *w = (const __u32 *)a;

	if (is_mapped(a))
		return a[12] == 127;
	return !w[0] && !w[1] && !w[2] && w[3] == bpf_htonl(1);
}

/* A packet to the unspecified address goes to loopback. */
static __always_inline void resolve_any(struct endpoint *e)
{
	__u32 *w = (__u32 *)e->address;

	if (e->inbound)
		return;
	if (is_mapped(e->address) && !w[3])
		w[3] = bpf_htonl(0x7f000001);
	else if (!w[0] && !w[1] && !w[2] && !w[3])
		w[3] = bpf_htonl(1);
}

#endif
