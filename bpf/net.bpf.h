/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets. Three layers judge by the same tables: the LSM hooks by the label of
 * the task (they see sockets made before the session), the cgroup hooks by the
 * session's cgroup (they see fast open, and run where LSM programs cannot), and
 * the egress hook by the packet (it sees all that leaves by IP).
 */
#ifndef BAILIFF_NET_BPF_H
#define BAILIFF_NET_BPF_H

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* The start of sockaddr_in and sockaddr_in6. */
struct sockaddr_inet {
	__u16 family;
	__be16 port;
	__be32 word;		/* IPv4 address, or flow label */
	__u8 address6[16];
};

/* Look the endpoint up; fills a's verdict, rule and reason. */
static __noinline int weigh_inet(struct agent *agent, __u64 generation, const struct endpoint *e, struct act *a)
{
	struct net_key nk = { .prefixlen = 32 + 128 };
	struct port_key pk = { .prefixlen = 32 + 16 + 16 };
	struct port_value *value = NULL;
	__u32 *set, slot = generation & 1, i;

	a->verdict = VERDICT_DENY;
	a->reason = REASON_DEFAULT;
	a->rule = 0;
	if (!agent)
		return 0;
	nk.table = e->inbound ? agent->net_in[slot] : agent->net_out[slot];
	if (!nk.table)
		return 0;
	if (!is_mapped(e->address))
		nk.table++;
	for (i = 0; i < sizeof(nk.address); i++)
		nk.address[i] = e->address[i];
	set = bpf_map_lookup_elem(&addresses, &nk);
	if (set) {
		pk.set = *set;
		pk.protocol = e->protocol;
		pk.port = bpf_htons(e->port);
		value = bpf_map_lookup_elem(&ports, &pk);
	}
	if (value) {
		a->reason = REASON_RULE;
		a->rule = value->rule;
		if (value->allow)
			a->verdict = VERDICT_ALLOW;
	}
	if (a->verdict == VERDICT_DENY && only_watch(agent, generation, value && value->guard))
		a->verdict = VERDICT_AUDIT;
	return 0;
}

/* Nothing in the tables speaks of it, but the session may talk to itself. */
static __always_inline bool maybe_self(struct agent *agent, __u64 generation, const struct endpoint *e,
				       const struct act *a)
{
	return a->reason == REASON_DEFAULT && agent && is_loopback(e->address) &&
	       (agent->flags[generation & 1] & AGENT_SELF);
}

static __always_inline void allow_self(struct agent *agent, __u64 generation, struct act *a)
{
	a->verdict = VERDICT_ALLOW;
	a->reason = REASON_RULE;
	a->rule = agent->self[generation & 1];
}

static __always_inline void describe(struct act *a, const struct endpoint *e, __u16 family, __u16 type)
{
	__u32 i;

	a->object = OBJECT_INET;
	a->family = family;
	a->type = type;
	a->protocol = e->protocol;
	a->port = e->port;
	for (i = 0; i < sizeof(a->address); i++)
		a->address[i] = e->address[i];
}

/* From a sockaddr in kernel memory. The family that will be used is the address's, or the socket's for AF_UNSPEC. */
static __always_inline int read_sockaddr(struct endpoint *e, const void *address, int len, __u16 sk_family)
{
	struct sockaddr_inet sa = {};

	if (len < 16 || bpf_probe_read_kernel(&sa, 16, address))
		return -1;
	e->port = bpf_ntohs(sa.port);
	if (sa.family == AF_INET || (sa.family == AF_UNSPEC && sk_family == AF_INET)) {
		map4(e, sa.word);
	} else {
		if (len < 24 || bpf_probe_read_kernel(&sa, 24, address))
			return -1;
		__builtin_memcpy(e->address, sa.address6, 16);
	}
	resolve_any(e);
	return 0;
}

/* The cgroup hooks of the session run for this socket: it was made inside, and the task has not left. */
static __always_inline bool covered(struct label *l, struct sock *sk)
{
	struct cgroup *cg = sk->sk_cgrp_data.cgroup;

	return cg && cg->kn && cg->kn->id == l->cgroup && bpf_get_current_cgroup_id() == l->cgroup;
}

static __always_inline bool is_inet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

/* Judge an endpoint for the task's label; the cgroup hooks settle what may be the session itself. */
static __noinline int judge_inet(struct label *l, struct sock *sk, struct endpoint *e, __u32 operation)
{
	struct act a = { .operation = operation, .kind = KIND_NETWORK };
	struct agent *agent = agent_of(l->agent);

	by_task(&a, l);
	weigh_inet(agent, l->generation, e, &a);
	describe(&a, e, sk->__sk_common.skc_family, sk->sk_type);
	if (maybe_self(agent, l->generation, e, &a)) {
		if (e->inbound)
			allow_self(agent, l->generation, &a);
		else if (covered(l, sk))
			return 0;
	}
	leave_use(&a);
	/* The cgroup hooks take the use, where they follow. */
	ask_address_grant(l->cgroup, l->session, e, &a, !a.held && !covered(l, sk));
	tell(&a, l);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

/* The local end of a socket, as one to listen on. */
static __always_inline void local_end(struct endpoint *e, struct sock *sk)
{
	e->inbound = 1;
	e->protocol = sk->sk_protocol;
	e->port = sk->__sk_common.skc_num;
	if (sk->__sk_common.skc_family == AF_INET)
		map4(e, sk->__sk_common.skc_rcv_saddr);
	else
		bpf_probe_read_kernel(e->address, 16, &sk->__sk_common.skc_v6_rcv_saddr);
}

/*
 * Judge use without an address on a socket that no cgroup program covers:
 * by whom it was connected to, or by where that was let in. Tells of denials
 * only: the connection is not the session's doing.
 */
static __noinline int judge_peer(struct label *l, struct sock *sk, __u32 operation)
{
	struct act a = { .operation = operation, .kind = KIND_NETWORK, .held = 1 };
	struct agent *agent = agent_of(l->agent);
	struct endpoint e = {};

	if (!sk->__sk_common.skc_dport)		/* not connected */
		return 0;
	by_task(&a, l);
	local_end(&e, sk);
	if (e.protocol == IPPROTO_TCP) {
		weigh_inet(agent, l->generation, &e, &a);
		if (a.verdict == VERDICT_ALLOW)
			return 0;
	}
	e.inbound = 0;
	e.port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (sk->__sk_common.skc_family == AF_INET)
		map4(&e, sk->__sk_common.skc_daddr);
	else
		bpf_probe_read_kernel(e.address, 16, &sk->__sk_common.skc_v6_daddr);
	weigh_inet(agent, l->generation, &e, &a);
	if (a.verdict == VERDICT_ALLOW || ask_address_grant(l->cgroup, l->session, &e, &a, false))
		return 0;
	describe(&a, &e, sk->__sk_common.skc_family, sk->sk_type);
	tell(&a, l);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

static __always_inline bool wanted_socket(int family, int type, int protocol)
{
	switch (family) {
	case AF_UNIX:
		return true;
	case AF_INET:
	case AF_INET6:
		if (type == SOCK_STREAM)
			return protocol == 0 || protocol == IPPROTO_TCP;
		return type == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP);
	case AF_NETLINK:
		return protocol == NETLINK_ROUTE;
	}
	return false;
}

/* Deny what no session has a use for; 0 where the policy only watches. */
static __noinline int refuse_kind(struct label *l, __u32 operation, __u16 family, __u16 type, __u16 protocol)
{
	struct act a = {
		.operation = operation, .kind = KIND_NETWORK, .object = OBJECT_SOCKET, .reason = REASON_SOCKET,
		.family = family, .type = type, .protocol = protocol, .verdict = VERDICT_DENY,
	};

	if (only_watch(agent_of(l->agent), l->generation, false))
		a.verdict = VERDICT_AUDIT;
	by_task(&a, l);
	tell(&a, l);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

static __always_inline int refuse_socket(struct label *l, struct sock *sk, __u32 operation)
{
	return refuse_kind(l, operation, sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol);
}

/* What a file system or a driver sends for a session, to its server, is not the session's. */
static __always_inline bool of_kernel(struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
}

/* One that no session can make came from outside. */
static __always_inline bool bars_socket(struct label *l, struct sock *sk, __u32 operation)
{
	return !wanted_socket(sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol) && !of_kernel(sk) &&
	       refuse_socket(l, sk, operation);
}

SEC("lsm/socket_create")
int BPF_PROG(socket_create, int family, int type, int protocol, int kern)
{
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (kern || wanted_socket(family, type, protocol))
		return 0;
	return refuse_kind(l, OP_SOCKET, family, type, protocol) ? -EACCES : 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int addrlen)
{
	struct endpoint e = {};
	struct sock *sk = sock->sk;
	__u16 family = 0;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk || !is_inet(sk->__sk_common.skc_family))
		return 0;
	bpf_probe_read_kernel(&family, sizeof(family), address);
	if (family == AF_UNSPEC)	/* disconnect */
		return 0;
	e.protocol = sk->sk_protocol;
	if (read_sockaddr(&e, address, addrlen, sk->__sk_common.skc_family))
		return -EACCES;
	return judge_inet(l, sk, &e, OP_CONNECT) ? -EACCES : 0;
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size)
{
	struct endpoint e = {};
	struct sock *sk = sock->sk;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk)
		return 0;
	if (bars_socket(l, sk, OP_SEND))
		return -EACCES;
	if (!is_inet(sk->__sk_common.skc_family))
		return 0;
	if (*(volatile __u64 *)&file_grants)
		reap(l->session);
	if (!msg->msg_name)
		return covered(l, sk) || of_kernel(sk) || !judge_peer(l, sk, OP_SEND) ? 0 : -EACCES;
	e.protocol = sk->sk_protocol;
	if (e.protocol == IPPROTO_TCP && !(msg->msg_flags & MSG_FASTOPEN))
		return 0;	/* the address is ignored */
	if (of_kernel(sk))
		return 0;
	if (read_sockaddr(&e, msg->msg_name, msg->msg_namelen, sk->__sk_common.skc_family))
		return -EACCES;
	return judge_inet(l, sk, &e, OP_SEND) ? -EACCES : 0;
}

/* Sockets that no cgroup program covers came from outside: what they bring in is judged like what they send. */
SEC("lsm/socket_recvmsg")
int BPF_PROG(socket_recvmsg, struct socket *sock)
{
	struct sock *sk = sock->sk;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk || covered(l, sk))
		return 0;
	if (bars_socket(l, sk, OP_RECV))
		return -EACCES;
	if (!is_inet(sk->__sk_common.skc_family) || of_kernel(sk))
		return 0;
	return judge_peer(l, sk, OP_RECV) ? -EACCES : 0;
}

/* What sends packets elsewhere than to the address that was judged, or joins groups that nobody judged. */
static __always_inline bool refused_option(int level, int option)
{
	switch (level) {
	case IPPROTO_IP:
		return option == IP_OPTIONS || option == IP_TRANSPARENT ||
		       (option >= IP_MULTICAST_IF && option <= IP_DROP_SOURCE_MEMBERSHIP && option != IP_MULTICAST_TTL && option != IP_MULTICAST_LOOP) ||
		       (option >= MCAST_JOIN_GROUP && option <= MCAST_MSFILTER);
	case IPPROTO_IPV6:
		return option == IPV6_RTHDR || option == IPV6_RTHDRDSTOPTS || option == IPV6_HOPOPTS || option == IPV6_DSTOPTS ||
		       option == IPV6_2292PKTOPTIONS || option == IPV6_FLOWLABEL_MGR || option == IPV6_TRANSPARENT ||
		       option == IPV6_ADD_MEMBERSHIP || (option >= MCAST_JOIN_GROUP && option <= MCAST_MSFILTER);
	case IPPROTO_UDP:
		return option == UDP_ENCAP;
	case SOL_SOCKET:
		return option == SO_MARK || option == SO_BINDTODEVICE;
	}
	return false;
}

SEC("lsm/socket_setsockopt")
int BPF_PROG(socket_setsockopt, struct socket *sock, int level, int option)
{
	struct act a = {
		.operation = OP_OPTION, .kind = KIND_NETWORK, .object = OBJECT_SOCKET, .reason = REASON_SOCKET,
		.verdict = VERDICT_DENY, .protocol = level, .type = option,
	};
	struct sock *sk = sock->sk;
	struct label *l;
	int rc;

	if (!refused_option(level, option))
		return 0;
	rc = enter(&l);
	if (rc <= 0)
		return rc < 0 ? -EPERM : 0;
	if (!sk || !is_inet(sk->__sk_common.skc_family))
		return 0;
	by_task(&a, l);
	a.family = sk->__sk_common.skc_family;
	if (only_watch(agent_of(l->agent), l->generation, false))
		a.verdict = VERDICT_AUDIT;
	tell(&a, l);
	return a.verdict == VERDICT_DENY ? -EPERM : 0;
}

/* The listener may be from outside. Only denials are told: its listening was. */
SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *sock)
{
	struct act a = { .operation = OP_ACCEPT, .kind = KIND_NETWORK };
	struct endpoint e = {};
	struct sock *sk = sock->sk;
	struct agent *agent;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk || !is_inet(sk->__sk_common.skc_family))
		return 0;
	agent = agent_of(l->agent);
	local_end(&e, sk);
	by_task(&a, l);
	weigh_inet(agent, l->generation, &e, &a);
	if (a.verdict == VERDICT_ALLOW || maybe_self(agent, l->generation, &e, &a))
		return 0;
	describe(&a, &e, sk->__sk_common.skc_family, sk->sk_type);
	tell(&a, l);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

/* Mark a Unix socket as the session's: it may be passed on in it, and `to: self` connects to it. */
static __always_inline void own_socket(struct sock *sk, __u64 session, __u32 agent)
{
	struct sock_info *info = bpf_sk_storage_get(&socks, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (info) {
		info->session = session;
		info->agent = agent;
	}
}

SEC("lsm/socket_post_create")
int BPF_PROG(socket_post_create, struct socket *sock, int family, int type, int protocol, int kern)
{
	struct sock *sk = sock->sk;
	struct label *l;

	if (family == AF_UNIX && !kern && sk && enter(&l) > 0)
		own_socket(sk, l->session, l->agent);
	return 0;
}

/* TCP is judged when it listens; a client may bind any port to send from. */
SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *sock, struct sockaddr *address, int addrlen)
{
	struct endpoint e = { .inbound = 1 };
	struct sock *sk = sock->sk;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk)
		return 0;
	if (sk->__sk_common.skc_family == AF_UNIX)	/* one from before the session may have no owner yet */
		own_socket(sk, l->session, l->agent);
	if (!is_inet(sk->__sk_common.skc_family) || sk->sk_protocol == IPPROTO_TCP)
		return 0;
	e.protocol = sk->sk_protocol;
	if (read_sockaddr(&e, address, addrlen, sk->__sk_common.skc_family))
		return -EACCES;
	if (!e.port)
		return 0;
	return judge_inet(l, sk, &e, OP_BIND) ? -EACCES : 0;
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *sock, int backlog)
{
	struct endpoint e = { .inbound = 1 };
	struct sock *sk = sock->sk;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (!sk || !is_inet(sk->__sk_common.skc_family))
		return 0;
	local_end(&e, sk);
	return judge_inet(l, sk, &e, OP_LISTEN) ? -EACCES : 0;
}

/* Judge a Unix peer by where it is bound. */
static __always_inline int judge_unix(struct label *l, struct sock *other)
{
	struct act a = {
		.operation = OP_UNIX_CONNECT, .kind = KIND_UNIX, .object = OBJECT_UNIX, .access = ACCESS_CONNECT,
		.family = AF_UNIX,
	};
	struct agent *agent = agent_of(l->agent);
	struct sock_info *info = bpf_sk_storage_get(&socks, other, 0, 0);
	struct unix_sock *u = bpf_skc_to_unix_sock(other);
	struct unix_address *address;
	struct dentry *d;
	__u32 state;
	int len = 0;

	if (agent && info && info->session == l->session &&
	    (agent->flags[l->generation & 1] & AGENT_SELF)) {
		count_allowed(l, KIND_UNIX);
		return 0;
	}
	if (!u)
		return -EACCES;
	d = u->path.dentry;
	if (d)
		return judge(l, &a, d, u->path.mnt) ? -EACCES : 0;
	address = u->addr;
	if (!address)		/* unnamed: the other end of a socketpair */
		return 0;
	len = address->len - 3;
	if (len < 0 || len > UNIX_NAME - 1)
		return -EACCES;
	if (bpf_probe_read_kernel(l->name, len & (MAX_NAME - 1), (void *)&address->name[0].sun_path[1]))
		return -EACCES;
	l->bytes = len;
	l->also = 0;
	l->reason = REASON_RULE;
	state = agent ? agent->start[l->generation & 1] : 0;
	state = step(l, state, abstract_hash, 0);
	l->state = step(l, state, hash_long(l, len), NAME_LOADED);
	by_task(&a, l);
	weigh(l, agent, &a);
	if (a.verdict == VERDICT_ALLOW) {
		count_allowed(l, KIND_UNIX);
		return 0;
	}
	a.object = OBJECT_ABSTRACT;
	tell_name(l, &a, len);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

/* What a session's listener accepts is the session's, whoever connects. */
SEC("lsm/unix_stream_connect")
int BPF_PROG(unix_stream_connect, struct sock *sock, struct sock *other, struct sock *newsk)
{
	struct sock_info *listener = bpf_sk_storage_get(&socks, other, 0, 0);
	struct label *l;
	int rc;

	if (listener)
		own_socket(newsk, listener->session, listener->agent);
	rc = enter(&l);
	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	return judge_unix(l, other) ? -EACCES : 0;
}

SEC("lsm/unix_may_send")
int BPF_PROG(unix_may_send, struct socket *sock, struct socket *other)
{
	struct sock *sk;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	sk = other->sk;
	if (!sk)
		return -EACCES;
	return judge_unix(l, sk) ? -EACCES : 0;
}

#endif
