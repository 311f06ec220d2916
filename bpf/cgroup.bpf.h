/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The cgroup programs. They are attached to the parent of all sessions'
 * cgroups, so nothing outside ever runs them.
 */
#ifndef BAILIFF_CGROUP_BPF_H
#define BAILIFF_CGROUP_BPF_H

#define DROP 0
#define PASS 1

static __always_inline void tuple_of(struct bpf_sock_tuple *t, const struct endpoint *e, __u32 *size)
{
	if (is_mapped(e->address)) {
		__builtin_memcpy(&t->ipv4.daddr, &e->address[12], 4);
		t->ipv4.dport = bpf_htons(e->port);
		*size = sizeof(t->ipv4);
	} else {
		__builtin_memcpy(t->ipv6.daddr, e->address, 16);
		t->ipv6.dport = bpf_htons(e->port);
		*size = sizeof(t->ipv6);
	}
}

/* The socket that would receive a packet to e is of this session. */
static __always_inline bool own_listener(void *ctx, __u64 session, const struct endpoint *e)
{
	struct bpf_sock_tuple tuple = {};
	struct sock_info *info;
	struct bpf_sock *sk;
	bool own;
	__u32 size;

	tuple_of(&tuple, e, &size);
	if (e->protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	info = bpf_sk_storage_get(&socks, sk, 0, 0);
	own = info && info->session == session;
	bpf_sk_release(sk);
	return own;
}

static __always_inline void own_sock(struct bpf_sock *sk, const struct session *s)
{
	struct sock_info *info;

	if (!sk)
		return;
	info = bpf_sk_storage_get(&socks, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (info) {
		info->session = s->session;
		info->agent = s->agent;
	}
}

static __always_inline struct session *current_session(__u64 *id)
{
	*id = bpf_get_current_ancestor_cgroup_id(fixed.session_level);
	return bpf_map_lookup_elem(&sessions, id);
}

/*
 * Bind a socket to the grant that it was connected under. Where no daemon is
 * there to destroy it when that is over, its packets are dropped all the same,
 * and unanswered probes end it, so that nobody waits for ever.
 */
static __always_inline int hold_socket(struct bpf_sock_addr *ctx, struct session *s, __u32 grant, bool connects)
{
	int on = 1, seconds = 5, probes = 3, timeout = 20000 /* ms */;
	struct sock_info *info;

	if (!ctx->sk)
		return -1;
	info = bpf_sk_storage_get(&socks, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!info)
		return -1;
	info->session = s->session;
	info->agent = s->agent;
	info->grant = name_of_grant(grant);
	if (!connects || ctx->protocol != IPPROTO_TCP)
		return 0;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	return 0;
}

/* What is in the sessions' cgroup, and of no session that is known, may do nothing. */
static __always_inline int refuse_stranger(void)
{
	struct act a = { .kind = KIND_GUARD, .verdict = VERDICT_DENY, .reason = REASON_NO_SESSION };

	tell(&a, NULL);
	bpf_set_retval(-EACCES);
	return DROP;
}

/* Told where no LSM program tells of it: on the basic tier, and where only here it was settled. */
static __always_inline int judge_address(struct bpf_sock_addr *ctx, struct endpoint *e, __u8 operation)
{
	struct act a = { .operation = operation, .kind = KIND_NETWORK };
	__u64 now = *(volatile __u64 *)&generation, id;
	struct session *s = current_session(&id);
	struct agent *agent;
	bool self = false;

	if (!s)
		return refuse_stranger();
	resolve_any(e);
	e->protocol = ctx->protocol;
	agent = agent_of(s->agent);
	weigh_inet(agent, now, e, &a);
	if (maybe_self(agent, now, e, &a)) {
		self = true;
		if (e->inbound || own_listener(ctx, s->session, e))
			allow_self(agent, now, &a);
	}
	if (a.verdict == VERDICT_ALLOW && (self || e->inbound))
		own_sock(ctx->sk, s);
	if (ask_address_grant(id, s->session, e, &a, true) && hold_socket(ctx, s, a.grant, operation == OP_CONNECT)) {
		a.verdict = VERDICT_DENY;
		a.reason = REASON_FULL;
		a.grant = 0;
	}
	if (fixed.full_tier && a.verdict == VERDICT_ALLOW && !(self && !e->inbound))
		return PASS;
	by_session(&a, s, now);
	describe(&a, e, ctx->user_family, ctx->type);
	tell(&a, NULL);
	if (a.verdict != VERDICT_DENY)
		return PASS;
	bpf_set_retval(-EACCES);
	return DROP;
}

static __always_inline void load6(struct endpoint *e, struct bpf_sock_addr *ctx)
{
	__u32 *w = (__u32 *)e->address;

	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port) };

	map4(&e, ctx->user_ip4);
	return judge_address(ctx, &e, OP_CONNECT);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port) };

	load6(&e, ctx);
	return judge_address(ctx, &e, OP_CONNECT);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port) };

	map4(&e, ctx->user_ip4);
	return judge_address(ctx, &e, OP_SEND);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port) };

	load6(&e, ctx);
	return judge_address(ctx, &e, OP_SEND);
}

/* Port 0 is a client's; whether it may be listened on shows in the packets. */
static __always_inline int judge_bind(struct bpf_sock_addr *ctx, struct endpoint *e)
{
	struct session *s;
	__u64 id;

	if (e->port && !(fixed.full_tier && ctx->protocol == IPPROTO_TCP))
		return judge_address(ctx, e, OP_BIND);
	s = current_session(&id);
	if (!s)
		return refuse_stranger();
	own_sock(ctx->sk, s);
	return PASS;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port), .inbound = 1 };

	map4(&e, ctx->user_ip4);
	return judge_bind(ctx, &e);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct endpoint e = { .port = bpf_ntohs(ctx->user_port), .inbound = 1 };

	load6(&e, ctx);
	return judge_bind(ctx, &e);
}

/* Both ends of a packet. */
struct packet {
	struct endpoint to, from;
	bool begins;	/* a TCP connection */
	bool resets;	/* one, and carries nothing */
};

static __always_inline int parse_ports(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	__be16 port[2];
	__u8 tcp[2] = {};	/* length of the header, flags */

	if (bpf_skb_load_bytes(skb, at, port, sizeof(port)))
		return -1;
	p->from.port = bpf_ntohs(port[0]);
	p->to.port = bpf_ntohs(port[1]);
	if (p->to.protocol != IPPROTO_TCP)
		return p->to.protocol == IPPROTO_UDP ? 0 : -1;
	if (bpf_skb_load_bytes(skb, at + 12, tcp, sizeof(tcp)))
		return -1;
	p->begins = (tcp[1] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	p->resets = tcp[1] & TCP_RST && skb->len == at + (tcp[0] >> 4) * 4;
	return 0;
}

/* Only plain TCP and UDP: no IP options, no extension headers (they can name another destination). */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr v4;
	struct ipv6hdr v6;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &v4, sizeof(v4)))
			return -1;
		map4(&p->to, v4.daddr);
		map4(&p->from, v4.saddr);
		p->to.protocol = v4.protocol;
		p->from.protocol = v4.protocol;
		if (v4.ihl != 5)
			return -1;
		return parse_ports(skb, p, sizeof(v4));
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, 0, &v6, sizeof(v6)))
		return -1;
	__builtin_memcpy(p->to.address, &v6.daddr, 16);
	__builtin_memcpy(p->from.address, &v6.saddr, 16);
	p->to.protocol = v6.nexthdr;
	p->from.protocol = v6.nexthdr;
	return parse_ports(skb, p, sizeof(v6));
}

/* A packet of a connection that was let in: its first packet was not ours to judge. */
static __always_inline bool is_reply(struct agent *agent, __u64 now, struct packet *p, struct act *a)
{
	if (p->to.protocol != IPPROTO_TCP || p->begins)
		return false;
	if (maybe_self(agent, now, &p->to, a) && is_loopback(p->from.address))
		return true;
	p->from.inbound = 1;
	weigh_inet(agent, now, &p->from, a);
	if (a->verdict != VERDICT_DENY)
		return true;
	/* Bound to every local address: the policy may allow just that. */
	if (is_mapped(p->from.address))
		map4(&p->from, 0);
	else
		__builtin_memset(p->from.address, 0, sizeof(p->from.address));
	weigh_inet(agent, now, &p->from, a);
	return a->verdict != VERDICT_DENY;
}

/* What the session's socket was connected under, if that was a grant. */
static __always_inline struct sock_info *granted_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct sock_info *info;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	info = bpf_sk_storage_get(&socks, sk, 0, 0);
	return info && info->grant ? info : NULL;
}

/* A connection that is being closed: its session may have ended before the last packets left. */
static __always_inline bool closing(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_TCP)
		return false;
	switch (sk->state) {
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_FIN_WAIT2:
	case BPF_TCP_CLOSING:
	case BPF_TCP_LAST_ACK:
	case BPF_TCP_CLOSE:
		return true;
	}
	return false;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	__u64 id = bpf_skb_ancestor_cgroup_id(skb, fixed.session_level);
	struct session *s = bpf_map_lookup_elem(&sessions, &id);
	struct act a = { .operation = OP_PACKET, .kind = KIND_NETWORK, .held = 1 }, again = {};
	__u64 now = *(volatile __u64 *)&generation;
	struct packet p = {};
	struct agent *agent;

	if (!s)
		return closing(skb) ? PASS : DROP;
	agent = agent_of(s->agent);
	if (parse(skb, &p)) {
		a.verdict = VERDICT_DENY;
		a.reason = REASON_SOCKET;
	} else {
		weigh_inet(agent, now, &p.to, &a);
		if (a.verdict != VERDICT_DENY)
			return PASS;
		again = a;
		if (is_reply(agent, now, &p, &again))
			return PASS;
		if (maybe_self(agent, now, &p.to, &a) && own_listener(skb, s->session, &p.to))
			return PASS;
		if (ask_address_grant(id, s->session, &p.to, &a, false))
			return PASS;
		/* The end of a connection whose grant is over: its peer learns at once. */
		if (p.resets && granted_socket(skb))
			return PASS;
	}
	by_session(&a, s, now);
	describe(&a, &p.to, is_mapped(p.to.address) ? AF_INET : AF_INET6, 0);
	tell_packet(&a);
	return DROP;
}

/*
 * Attached only while there are grants for addresses. What comes in was asked
 * for by what went out, but for a connection whose grant is over: its peer may
 * go on sending.
 */
SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct act a = { .operation = OP_PACKET, .kind = KIND_NETWORK, .held = 1 };
	__u64 id = bpf_skb_ancestor_cgroup_id(skb, fixed.session_level);
	__u64 now = *(volatile __u64 *)&generation;
	struct sock_info *info = granted_socket(skb);
	struct packet p = {};
	struct session *s;

	if (!info || named_grant(info->grant, info->session))
		return PASS;
	s = bpf_map_lookup_elem(&sessions, &id);
	if (!s)
		return DROP;
	a.verdict = VERDICT_DENY;
	a.reason = REASON_SOCKET;
	if (!parse(skb, &p)) {
		weigh_inet(agent_of(s->agent), now, &p.from, &a);
		if (a.verdict != VERDICT_DENY || ask_address_grant(id, s->session, &p.from, &a, false))
			return PASS;
	}
	by_session(&a, s, now);
	describe(&a, &p.from, is_mapped(p.from.address) ? AF_INET : AF_INET6, 0);
	tell_packet(&a);
	return DROP;
}

#endif
