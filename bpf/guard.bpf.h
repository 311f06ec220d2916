/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What would reach outside the session, or change what paths mean: never
 * allowed, whatever the policy.
 */
#ifndef BAILIFF_GUARD_BPF_H
#define BAILIFF_GUARD_BPF_H

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
	if (!other)	/* a thread that has met no hook yet */
		other = bpf_task_storage_get(&labels, task->group_leader, 0, 0);
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

/* Starving a process is ending it slowly. */
SEC("lsm/task_setnice")
int BPF_PROG(task_setnice, struct task_struct *p)
{
	return on_task(OP_SCHEDULE, p, false);
}

SEC("lsm/task_setioprio")
int BPF_PROG(task_setioprio, struct task_struct *p)
{
	return on_task(OP_SCHEDULE, p, false);
}

SEC("lsm/task_setscheduler")
int BPF_PROG(task_setscheduler, struct task_struct *p)
{
	return on_task(OP_SCHEDULE, p, false);
}

SEC("lsm/task_setrlimit")
int BPF_PROG(task_setrlimit, struct task_struct *p)
{
	return on_task(OP_SCHEDULE, p, false);
}

SEC("lsm/task_movememory")
int BPF_PROG(task_movememory, struct task_struct *p)
{
	return on_task(OP_SCHEDULE, p, false);
}

/* A file's owner is sent signals by the kernel, in nobody's name: no session makes anybody else one. */
SEC("lsm/file_fcntl")
int BPF_PROG(file_fcntl, struct file *file, unsigned int cmd, unsigned long arg)
{
	struct task_struct *t = bpf_get_current_task_btf();

	if (cmd != F_SETOWN_EX && (cmd != F_SETOWN || !arg || arg == (unsigned long)t->tgid))
		return 0;
	return on_privilege(OP_SIGNAL);
}

/* Whoever looks after a cgroup may lock its directory: no session keeps that from anybody. */
SEC("lsm/file_lock")
int BPF_PROG(file_lock, struct file *file, unsigned int cmd)
{
	return file->f_path.dentry->d_sb->s_magic == CGROUP2_SUPER_MAGIC ? on_privilege(OP_KERNEL) : 0;
}

/* The same by ioctl, and what types into, or takes over, a terminal that others use. */
static __always_inline int on_ioctl(struct file *file, unsigned int cmd)
{
	switch (cmd) {
	case 0x5412:	/* TIOCSTI */
	case 0x541c:	/* TIOCLINUX */
	case 0x541d:	/* TIOCCONS */
	case 0x5423:	/* TIOCSETD */
	case 0x5437:	/* TIOCVHANGUP */
		return on_privilege(OP_TERMINAL);
	case 0x8901:	/* FIOSETOWN */
	case 0x8902:	/* SIOCSPGRP */
		return on_privilege(OP_SIGNAL);
	case 0x40086602:	/* FS_IOC_SETFLAGS */
	case 0x40046602:	/* FS_IOC32_SETFLAGS */
	case 0x401c5820:	/* FS_IOC_FSSETXATTR */
		return on_path(OP_XATTR, ACCESS_WRITE, file->f_path.dentry, file->f_path.mnt);
	}
	return 0;
}

SEC("lsm/file_ioctl")
int BPF_PROG(file_ioctl, struct file *file, unsigned int cmd)
{
	return on_ioctl(file, cmd);
}

SEC("lsm/file_ioctl_compat")
int BPF_PROG(file_ioctl_compat, struct file *file, unsigned int cmd)
{
	return on_ioctl(file, cmd);
}

/*
 * Only capabilities that the task has come here. It is also asked where one is
 * convenient, not needed: those questions are not told.
 */
SEC("lsm/capable")
int BPF_PROG(capable, const struct cred *cred, void *ns, int cap, unsigned int options)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct act a = {
		.operation = OP_CAPABILITY, .kind = KIND_GUARD, .verdict = VERDICT_DENY,
		.reason = REASON_PRIVILEGE, .type = cap,
	};
	struct agent *agent;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EPERM : 0;
	if (t->cred != t->real_cred)	/* the kernel's own, on behalf of a file system */
		return 0;
	/* Only changes the sets, of which each member is asked for here: the launcher drops what is left. */
	if (cap == CAP_SETPCAP)
		return 0;
	agent = agent_of(l->agent);
	if (agent && agent->capabilities[l->generation & 1] >> (cap & 63) & 1)
		return 0;
	by_task(&a, l);
	if (!(options & CAP_OPT_NOAUDIT))
		tell(&a, l);
	return -EPERM;
}

/* A missing key is made by a helper that runs outside every session. */
SEC("lsm/key_alloc")
int BPF_PROG(key_alloc)
{
	return on_privilege(OP_KEY);
}

SEC("lsm/key_permission")
int BPF_PROG(key_permission)
{
	return on_privilege(OP_KEY);
}

/* So is a missing module, but for the one that would run a file of an unknown format. */
SEC("lsm/kernel_module_request")
int BPF_PROG(kernel_module_request, char *name)
{
	char start[8] = {};
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EPERM : 0;
	bpf_probe_read_kernel_str(start, sizeof(start), name);
	forbid(OP_MODULE, l, 0, !__builtin_memcmp(start, "binfmt-", 7));
	return -EPERM;
}

SEC("lsm/perf_event_open")
int BPF_PROG(perf_event_open)
{
	return on_privilege(OP_PERF);
}

SEC("lsm/settime")
int BPF_PROG(settime)
{
	return on_privilege(OP_CLOCK);
}

SEC("lsm/syslog")
int BPF_PROG(kernel_log)
{
	return on_privilege(OP_KERNEL);
}

SEC("lsm/locked_down")
int BPF_PROG(locked_down)
{
	return on_privilege(OP_KERNEL);
}

SEC("lsm/uring_allowed")
int BPF_PROG(uring_allowed)
{
	return on_privilege(OP_RING);
}

/* What a ring does with other credentials, or from a thread of the kernel's, other hooks would take for the kernel's own. */
SEC("lsm/uring_override_creds")
int BPF_PROG(uring_override_creds)
{
	return on_privilege(OP_RING);
}

SEC("lsm/uring_sqpoll")
int BPF_PROG(uring_sqpoll)
{
	return on_privilege(OP_RING);
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
