/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What would reach outside the session, or change what paths mean: never
 * allowed, whatever the policy.
 */
#ifndef BAILIFF_GUARD_BPF_H
#define BAILIFF_GUARD_BPF_H

static __always_inline int forbid(__u8 operation, struct label *l, __u32 peer, bool quiet)
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

static __always_inline int on_privilege(__u8 operation)
{
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EPERM : 0;
	forbid(operation, l, 0, false);
	return -EPERM;
}

/* Tasks of the same session may do to each other what the kernel lets them. */
static __always_inline int on_task(__u8 operation, struct task_struct *task, bool quiet)
{
	struct label *l, *other;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EPERM : 0;
	other = bpf_task_storage_get(&labels, task, 0, 0);
	if (other && other->session == l->session)
		return 0;
	forbid(operation, l, task->tgid, quiet);
	return -EPERM;
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check, struct task_struct *child, unsigned int mode)
{
	return on_task(OP_PTRACE, child, mode & PTRACE_MODE_NOAUDIT);
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme, struct task_struct *parent)
{
	return on_task(OP_PTRACE, parent, false);
}

SEC("lsm/task_kill")
int BPF_PROG(task_kill, struct task_struct *p)
{
	return on_task(OP_SIGNAL, p, false);
}

SEC("lsm/bpf")
int BPF_PROG(bpf_call, int cmd)
{
	return on_privilege(OP_BPF);
}

SEC("lsm/userns_create")
int BPF_PROG(userns_create)
{
	return on_privilege(OP_NAMESPACE);
}

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount)
{
	return on_privilege(OP_MOUNT);
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount)
{
	return on_privilege(OP_MOUNT);
}

SEC("lsm/sb_remount")
int BPF_PROG(sb_remount)
{
	return on_privilege(OP_MOUNT);
}

SEC("lsm/sb_kern_mount")
int BPF_PROG(sb_kern_mount)
{
	return on_privilege(OP_MOUNT);
}

/* What a ring does with other credentials, or from a thread of the kernel's, other hooks would take for the kernel's own. */
SEC("lsm/uring_override_creds")
int BPF_PROG(uring_override_creds)
{
	return on_privilege(OP_NAMESPACE);
}

SEC("lsm/uring_sqpoll")
int BPF_PROG(uring_sqpoll)
{
	return on_privilege(OP_NAMESPACE);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot)
{
	return on_privilege(OP_MOUNT);
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount)
{
	return on_privilege(OP_MOUNT);
}

#endif
