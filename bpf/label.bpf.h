/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef BAILIFF_LABEL_BPF_H
#define BAILIFF_LABEL_BPF_H

/* Confine a task like another one. */
static __always_inline void copy_label(struct label *to, struct label *from)
{
	to->session = from->session;
	to->cgroup = from->cgroup;
	to->agent = from->agent;
	to->exe_len = from->exe_len;
	bpf_probe_read_kernel(to->exe, EXE_LEN, from->exe);
}

#endif
