/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs: executable mappings, and what the label knows of the executable. The exec itself is judged at file_open.
 */
#ifndef BAILIFF_EXEC_BPF_H
#define BAILIFF_EXEC_BPF_H

static __always_inline int on_mapping(struct file *file)
{
	struct act a = {
		.operation = OP_MAP, .kind = KIND_EXEC, .object = OBJECT_PATH, .access = ACCESS_EXECUTE, .held = 1,
	};
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	return judge(l, &a, file->f_path.dentry, file->f_path.mnt) ? -EACCES : 0;
}

/*
 * A mapping outlives what is decided about the file: reading through it has no
 * hook. Past the end of a grant none is made, and a session that made one
 * before does not go on, if the grant says so.
 */
static __always_inline int on_granted_mapping(struct file *file, unsigned long prot)
{
	struct act a = { .operation = OP_MAP, .kind = KIND_FILE, .object = OBJECT_PATH, .access = ACCESS_READ };
	struct granted_file *open;
	struct grant *g;
	grant_name name;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	open = bpf_inode_storage_get(&granted, file->f_inode, 0, 0);
	name = granted_to(open, l->cgroup);
	if (!name)
		return 0;
	if (prot & PROT_WRITE)
		a.access |= ACCESS_WRITE;
	g = named_grant(name, l->session);
	if (!g)
		return judge_use(l, &a, file) ? -EACCES : 0;
	if (!(g->flags & GRANT_KILL) || note_mapping(l->session, name))
		return 0;
	a.verdict = VERDICT_DENY;
	a.reason = REASON_FULL;
	by_task(&a, l);
	look_at(l, file->f_path.dentry, file->f_path.mnt);
	tell_path(l, &a, object_at(l), 0);
	return -EACCES;
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot)
{
	if (!file)
		return 0;
	if (prot & PROT_EXEC && on_mapping(file))
		return -EACCES;
	return *(volatile __u64 *)&file_grants && on_granted_mapping(file, prot) ? -EACCES : 0;
}

/* Attached, on every processor, only while there are grants that kill: a process that asks the kernel for nothing meets no hook. */
SEC("perf_event")
int tick(void *ctx)
{
	__u64 cgroup = bpf_get_current_ancestor_cgroup_id(fixed.session_level);
	struct session *s = bpf_map_lookup_elem(&sessions, &cgroup);

	if (s)
		reap(s->session);
	return 0;
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	struct file *file = vma->vm_file;

	if (!file || !(prot & PROT_EXEC))
		return 0;
	return on_mapping(file);
}

/* Keep the names of the n collected dentries in label.exe. */
__noinline int keep_executable(struct label *l, __u32 n)
{
	__u32 i, off = 0;

	if (!l)
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		struct dentry *d = (struct dentry *)l->dentry[i];
		const unsigned char *name = NULL;
		long len;

		if (i >= n || off >= EXE_LEN - 1)
			break;
		bpf_core_read(&name, sizeof(name), &d->d_name.name);
		len = bpf_probe_read_kernel_str(l->exe + off, EXE_LEN - off, name);
		if (len <= 0)
			break;
		off += len & (2 * EXE_LEN - 1);
	}
	l->exe_len = off;
	return 0;
}

/* The exec can no longer fail: remember the executable, and tell of it. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct act a = {
		.operation = OP_EXEC, .kind = KIND_EXEC, .object = OBJECT_PATH, .access = ACCESS_EXECUTE,
	};
	struct dentry *d = bprm->file->f_path.dentry;
	struct vfsmount *mnt = bprm->file->f_path.mnt;
	struct agent *agent;
	struct label *l;
	__u32 n;

	if (enter(&l) <= 0)
		return 0;
	agent = agent_of(l->agent);
	resolve(l, d, mnt, agent ? agent->start[l->generation & 1] : 0);
	weigh(l, agent, &a);
	n = collect_again(l);
	keep_executable(l, n);
	if (a.verdict != VERDICT_ALLOW)	/* told when it was opened */
		return 0;
	by_task(&a, l);
	tell_path(l, &a, object_at(l), 0);
	return 0;
}

#endif
