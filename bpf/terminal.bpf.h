/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a pseudoterminal is. Its path tells nothing, and its owner little: what
 * people type, and what agents print, are often of one user. A session has the
 * terminals that it makes, and the one that it was started in.
 */
#ifndef BAILIFF_TERMINAL_BPF_H
#define BAILIFF_TERMINAL_BPF_H

#define PTY_MAJOR 136	/* UNIX98_PTY_SLAVE_MAJOR */
#define PTY_MAJORS 8

static __always_inline bool is_pty(int major)
{
	return major >= PTY_MAJOR && major < PTY_MAJOR + PTY_MAJORS;
}

/* Somebody opened a master: the slave is theirs. One that has the address of an earlier one is not whose that was. */
SEC("fexit/devpts_pty_new")
int BPF_PROG(terminal_made, void *fsi, int index, void *tty, struct dentry *slave)
{
	struct label *l;
	__u64 at;

	if (!slave || (unsigned long)slave > (unsigned long)-4096)
		return 0;
	at = (__u64)BPF_CORE_READ(slave, d_inode);
	if (enter(&l) > 0)
		bpf_map_update_elem(&terminals, &at, &l->session, BPF_ANY);
	else
		bpf_map_delete_elem(&terminals, &at);
	return 0;
}

SEC("fentry/devpts_pty_kill")
int BPF_PROG(terminal_gone, struct dentry *slave)
{
	__u64 at = (__u64)BPF_CORE_READ(slave, d_inode);

	bpf_map_delete_elem(&terminals, &at);
	return 0;
}

/* A process that comes into a session brings its controlling terminal, which its children may open by name. */
static __always_inline void bring_terminal(struct task_struct *t, __u64 session)
{
	struct tty_struct *tty = BPF_CORE_READ(t, signal, tty);
	struct dentry *slave;
	__u64 at;

	if (!tty || !is_pty(BPF_CORE_READ(tty, driver, major)))
		return;
	slave = BPF_CORE_READ(tty, driver_data);
	at = (__u64)BPF_CORE_READ(slave, d_inode);
	if (at)
		bpf_map_update_elem(&terminals, &at, &session, BPF_ANY);
}

static __always_inline bool has_terminal(struct label *l, __u64 inode)
{
	__u64 *session = bpf_map_lookup_elem(&terminals, &inode);

	return session && *session == l->session;
}

/* The slave is the session's, or controls the current process. */
static __always_inline bool own_slave(struct label *l, struct dentry *d, struct inode *inode)
{
	struct task_struct *t = bpf_get_current_task_btf();
	__u64 tty = (__u64)BPF_CORE_READ(t, signal, tty);

	return has_terminal(l, number(l, inode)) || (tty && tty == (__u64)BPF_CORE_READ(d, d_fsdata));
}

static __always_inline bool is_master(struct inode *inode)
{
	return (inode->i_mode & S_IFMT) == S_IFCHR && inode->i_rdev == (5 << 20 | 2);
}

/* The open master is of one of the session's. */
static __always_inline bool own_master(struct label *l, struct file *file)
{
	struct tty_file_private *private = file->private_data;
	struct dentry *slave = BPF_CORE_READ(private, tty, link, driver_data);

	return has_terminal(l, (__u64)BPF_CORE_READ(slave, d_inode));
}

#endif
