/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs: executable mappings, what the label knows of the executable, and
 * the label's inheritance. The exec itself is judged at file_open.
 */
#ifndef BAILIFF_EXEC_BPF_H
#define BAILIFF_EXEC_BPF_H

static __always_inline int on_mapping(struct file *file)
{
	struct act a = {
		.operation = OP_MAP, .kind = KIND_EXEC, .object = OBJECT_PATH, .access = ACCESS_EXECUTE,
	};
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	return judge(l, &a, file->f_path.dentry, file->f_path.mnt) ? -EACCES : 0;
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot)
{
	if (!file || !(prot & PROT_EXEC))
		return 0;
	return on_mapping(file);
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

/* A child has its parent's label, or is not born. */
SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *task, unsigned long clone_flags)
{
	struct label *l, *child;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	child = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!child)
		return -EPERM;
	child->session = l->session;
	child->cgroup = l->cgroup;
	child->agent = l->agent;
	child->exe_len = l->exe_len;
	bpf_probe_read_kernel(child->exe, EXE_LEN, l->exe);
	return 0;
}

#endif
