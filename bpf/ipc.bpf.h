/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * System V shared memory, message queues and semaphores have no path: a session
 * has those that it made, and no others.
 */
#ifndef BAILIFF_IPC_BPF_H
#define BAILIFF_IPC_BPF_H

/* Note who made an object. One that somebody else makes in the same place is not the session's. */
static __always_inline int on_ipc_made(struct kern_ipc_perm *perm)
{
	__u64 at = (__u64)perm;
	struct label *l;
	int rc = enter(&l);

	if (!rc) {
		bpf_map_delete_elem(&ipc_objects, &at);
		return 0;
	}
	if (rc < 0)
		return -EACCES;
	at = number(l, perm);
	if (!bpf_map_update_elem(&ipc_objects, &at, &l->session, BPF_ANY))
		return 0;
	forbid(OP_IPC, l, 0, false);
	return -EACCES;
}

SEC("lsm/shm_alloc_security")
int BPF_PROG(shm_alloc_security, struct kern_ipc_perm *perm)
{
	return on_ipc_made(perm);
}

SEC("lsm/msg_queue_alloc_security")
int BPF_PROG(msg_queue_alloc_security, struct kern_ipc_perm *perm)
{
	return on_ipc_made(perm);
}

SEC("lsm/sem_alloc_security")
int BPF_PROG(sem_alloc_security, struct kern_ipc_perm *perm)
{
	return on_ipc_made(perm);
}

SEC("lsm/ipc_permission")
int BPF_PROG(ipc_permission, struct kern_ipc_perm *perm)
{
	__u64 at, *session;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	at = number(l, perm);
	session = bpf_map_lookup_elem(&ipc_objects, &at);
	if (session && *session == l->session)
		return 0;
	forbid(OP_IPC, l, 0, false);
	return -EACCES;
}

#endif
