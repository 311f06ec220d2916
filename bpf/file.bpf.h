/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files: open, and every operation on a name or on metadata.
 */
#ifndef BAILIFF_FILE_BPF_H
#define BAILIFF_FILE_BPF_H

/* Reopened pipes and the like, and files under an overlay, whose opening was judged on the overlay. */
enum internal {
	NOT_INTERNAL,
	INTERNAL_ANONYMOUS,	/* of a filesystem that only the kernel mounts */
	INTERNAL_BACKING,
};

static __always_inline enum internal internal_mount(struct vfsmount *mnt, struct super_block *sb)
{
	struct task_struct *t = bpf_get_current_task_btf();
	/* Not enough by itself: the kernel makes debugfs and the like too, and they are mounted for all to see. */
	bool anonymous = sb->s_flags & SB_KERNMOUNT;
	struct mount *m;
	void *ns = NULL;

	/* The message queues of a whole namespace: whoever made them. */
	if (sb->s_magic == MQUEUE_MAGIC)
		return NOT_INTERNAL;
	/* Only beyond an overlay is the acting credential not the task's own. */
	if (!anonymous && t->cred == t->real_cred)
		return NOT_INTERNAL;
	m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
	if (bpf_core_read(&ns, sizeof(ns), &m->mnt_ns) || (unsigned long)ns <= (unsigned long)-4096)
		return NOT_INTERNAL;
	return anonymous ? INTERNAL_ANONYMOUS : INTERNAL_BACKING;
}

static __always_inline __u8 access_of(struct file *file)
{
	__u32 mode = file->f_mode, flags = file->f_flags;
	__u8 access = 0;

	if (flags & OPEN_FOR_EXEC)
		return ACCESS_EXECUTE;
	if (mode & FMODE_READ)
		access |= ACCESS_READ;
	if (mode & FMODE_WRITE || flags & O_TRUNC)
		access |= ACCESS_WRITE;
	if ((flags & O_ACCMODE) == O_ACCMODE)
		access |= ACCESS_READ | ACCESS_WRITE;
	if ((flags & O_TMPFILE_BIT) == O_TMPFILE_BIT)
		access |= ACCESS_CREATE;
	return access;
}

/* A file that a grant opened is looked at again when it is used. */
static __always_inline int hold(struct label *l, struct file *file, struct act *a)
{
	struct granted_file *open = bpf_inode_storage_get(&granted, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (note_granted(open, l->cgroup, a->grant))
		return 0;
	a->verdict = VERDICT_DENY;
	a->reason = REASON_FULL;
	a->grant = 0;
	tell_path(l, a, object_at(l), 0);
	return -EACCES;
}

/* Use of an open file: only that of one which a grant opened, and which is over, is judged. */
static __always_inline int judge_use(struct label *l, struct act *a, struct file *file)
{
	struct granted_file *open = bpf_inode_storage_get(&granted, file->f_inode, 0, 0);
	grant_name name = granted_to(open, l->cgroup);

	a->held = 1;
	if (!name || named_grant(name, l->session))
		return 0;
	return judge(l, a, file->f_path.dentry, file->f_path.mnt);
}

/* Attached only while there are grants for files: it runs at every read and write on the host. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask)
{
	struct act a = { .operation = OP_READ, .kind = KIND_FILE, .object = OBJECT_PATH, .access = ACCESS_READ };
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	reap(l->session);
	if (mask & MAY_WRITE) {
		a.operation = OP_WRITE;
		a.access = ACCESS_WRITE;
	}
	return judge_use(l, &a, file) ? -EACCES : 0;
}

/*
 * A device node may have been planted anywhere: only one on devtmpfs is what its
 * path says. Block devices, the host's memory, log and consoles, and what makes
 * new devices are no path's business, nor are terminals. Returns why it is
 * refused, or 0.
 */
static __always_inline enum reason refused_device(struct label *l, struct dentry *d, struct inode *inode)
{
	__u32 major = inode->i_rdev >> 20, minor = inode->i_rdev & ((1 << 20) - 1);
	char type[9] = {};

	if ((inode->i_mode & S_IFMT) == S_IFBLK)
		return REASON_DEVICE;
	if ((inode->i_mode & S_IFMT) != S_IFCHR)
		return 0;
	switch (major) {
	case 1:		/* mem, kmem, port, kmsg; then null, zero, full, random, urandom */
		if (minor == 1 || minor == 2 || minor == 4 || minor == 11)
			return REASON_DEVICE;
		if (minor == 3 || minor == 5 || (minor >= 7 && minor <= 9))
			return 0;
		break;
	case 4:		/* virtual consoles; then serial lines */
		if (minor < 64)
			return REASON_TERMINAL;
		break;
	case 5:		/* tty, console, ptmx */
		if (minor == 1)
			return REASON_DEVICE;
		if (minor == 0 || minor == 2)
			return 0;
		break;
	case 7:		/* what is on the virtual consoles' screens */
		return REASON_TERMINAL;
	case 10:	/* tun, uinput, fuse, device mapper, loop-control, vhost-net, vhost-vsock: each makes the host do more */
		switch (minor) {
		case 200: case 223: case 229: case 236: case 237: case 238: case 241:
			return REASON_DEVICE;
		}
		break;
	}
	if (is_pty(major))
		return own_slave(l, d, inode) ? 0 : REASON_TERMINAL;
	bpf_probe_read_kernel_str(type, sizeof(type), BPF_CORE_READ(inode, i_sb, s_type, name));
	return __builtin_memcmp(type, "devtmpfs", 8) ? REASON_DEVICE : 0;
}

static __noinline int refuse_device(struct label *l, struct act *a, struct dentry *d, struct vfsmount *mnt)
{
	a->rule = 0;
	a->grant = 0;
	a->verdict = only_watch(agent_of(l->agent), l->generation, false) ? VERDICT_AUDIT : VERDICT_DENY;
	by_task(a, l);
	look_at(l, d, mnt);
	tell_path(l, a, object_at(l), 0);
	return a->verdict == VERDICT_DENY ? -EPERM : 0;
}

/* Whether it is a device that no policy opens. */
static __always_inline bool bars_device(struct label *l, struct act *a, struct file *file)
{
	enum reason why = refused_device(l, file->f_path.dentry, file->f_inode);

	if (!why)
		return false;
	a->reason = why;
	return refuse_device(l, a, file->f_path.dentry, file->f_path.mnt);
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file)
{
	struct act a = { .operation = OP_OPEN, .kind = KIND_FILE, .object = OBJECT_PATH };
	struct vfsmount *mnt;
	struct dentry *d;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	d = file->f_path.dentry;
	mnt = file->f_path.mnt;
	a.access = access_of(file);
	if (a.access & ACCESS_EXECUTE) {
		a.operation = OP_EXEC;
		a.kind = KIND_EXEC;
	}
	switch (internal_mount(mnt, d->d_sb)) {
	case INTERNAL_BACKING:
		return 0;
	case INTERNAL_ANONYMOUS:
		if (!(a.access & ACCESS_EXECUTE))
			return 0;
		break;
	case NOT_INTERNAL:
		break;
	}
	if (judge(l, &a, d, mnt))
		return -EACCES;
	if (bars_device(l, &a, file))
		return -EACCES;
	return a.grant && hold(l, file, &a) ? -EACCES : 0;
}

/* One operation on one path. */
static __always_inline int on_path(__u8 operation, __u8 access, struct dentry *d, struct vfsmount *mnt)
{
	struct act a = {
		.operation = operation, .kind = KIND_FILE, .object = OBJECT_PATH, .access = access,
	};
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	return judge(l, &a, d, mnt) ? -EACCES : 0;
}

SEC("lsm/path_mknod")
int BPF_PROG(path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)
{
	struct act a = { .operation = OP_CREATE, .kind = KIND_FILE, .object = OBJECT_PATH, .access = ACCESS_CREATE };
	__u32 format = mode & S_IFMT;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (format && format != S_IFREG)
		a.operation = OP_MKNOD;
	if (format == S_IFBLK || format == S_IFCHR) {
		a.reason = REASON_DEVICE;
		return refuse_device(l, &a, dentry, dir->mnt) ? -EPERM : 0;
	}
	return judge(l, &a, dentry, dir->mnt) ? -EACCES : 0;
}

SEC("lsm/path_mkdir")
int BPF_PROG(path_mkdir, const struct path *dir, struct dentry *dentry)
{
	return on_path(OP_MKDIR, ACCESS_CREATE, dentry, dir->mnt);
}

SEC("lsm/path_symlink")
int BPF_PROG(path_symlink, const struct path *dir, struct dentry *dentry)
{
	return on_path(OP_SYMLINK, ACCESS_CREATE, dentry, dir->mnt);
}

SEC("lsm/path_unlink")
int BPF_PROG(path_unlink, const struct path *dir, struct dentry *dentry)
{
	return on_path(OP_UNLINK, ACCESS_DELETE, dentry, dir->mnt);
}

SEC("lsm/path_rmdir")
int BPF_PROG(path_rmdir, const struct path *dir, struct dentry *dentry)
{
	return on_path(OP_RMDIR, ACCESS_DELETE, dentry, dir->mnt);
}

/* To be told what changes in a directory is to read it. */
SEC("lsm/path_notify")
int BPF_PROG(path_notify, const struct path *path)
{
	return on_path(OP_WATCH, ACCESS_READ, path->dentry, path->mnt);
}

#define WORD(a, b, c, d, e, f, g, h) \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | \
	 (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)

/* Descriptors of no file: those that are as harmless in another's hands. The rest are rings, maps and programs, mounts, guests. */
static __always_inline bool harmless_object(struct dentry *d)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), BPF_CORE_READ(d, d_name.name));
	return word == WORD('[', 'e', 'v', 'e', 'n', 't', 'f', 'd') || word == WORD('[', 't', 'i', 'm', 'e', 'r', 'f', 'd') ||
	       word == WORD('[', 's', 'i', 'g', 'n', 'a', 'l', 'f') || word == WORD('[', 'e', 'v', 'e', 'n', 't', 'p', 'o');
}

/*
 * A socket that somebody passed on. Those of the internet are judged when they
 * are used. Where a Unix socket leads, nobody could tell then: it must be one
 * that the session made.
 */
static __always_inline int receive_socket(struct label *l, struct sock *sk)
{
	struct sock_info *info = bpf_sk_storage_get(&socks, sk, 0, 0);
	__u16 family = sk->__sk_common.skc_family;

	if ((info && info->session == l->session) ||
	    (family != AF_UNIX && wanted_socket(family, sk->sk_type, sk->sk_protocol)))
		return 0;
	return refuse_socket(l, sk, OP_RECEIVE) ? -EACCES : 0;
}

/* A file that somebody passed on is judged as if it were opened now. */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file)
{
	struct act a = { .operation = OP_RECEIVE, .kind = KIND_FILE, .object = OBJECT_PATH };
	struct dentry *d = file->f_path.dentry;
	struct socket *sock;
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (d->d_sb->s_magic == ANON_INODE_FS_MAGIC && !harmless_object(d)) {
		forbid(OP_RECEIVE, l, 0, false);
		return -EPERM;
	}
	sock = bpf_sock_from_file(file);
	if (sock)
		return sock->sk ? receive_socket(l, sock->sk) : -EACCES;
	if (internal_mount(file->f_path.mnt, d->d_sb) != NOT_INTERNAL)
		return 0;
	a.access = access_of(file);
	if (judge(l, &a, d, file->f_path.mnt) || bars_device(l, &a, file))
		return -EACCES;
	if (is_master(file->f_inode) && !own_master(l, file)) {
		a.reason = REASON_TERMINAL;
		return refuse_device(l, &a, d, file->f_path.mnt) ? -EACCES : 0;
	}
	return 0;
}

/* A change of what is there already. Memory files, pipes and the like have no path: who has one may use it. */
static __always_inline int on_object(__u8 operation, struct dentry *d, struct vfsmount *mnt)
{
	struct act a = {
		.operation = operation, .kind = KIND_FILE, .object = OBJECT_PATH, .access = ACCESS_WRITE,
	};
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (internal_mount(mnt, d->d_sb) == INTERNAL_ANONYMOUS)
		return 0;
	return judge(l, &a, d, mnt) ? -EACCES : 0;
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, const struct path *path)
{
	return on_object(OP_TRUNCATE, path->dentry, path->mnt);
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod, const struct path *path)
{
	return on_object(OP_CHMOD, path->dentry, path->mnt);
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown, const struct path *path)
{
	return on_object(OP_CHOWN, path->dentry, path->mnt);
}

static __always_inline int on_move(struct act *a, struct dentry *old, struct dentry *new, struct vfsmount *mnt)
{
	struct label *l;
	int rc = enter(&l);

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	return judge_move(l, a, old, new, mnt) ? -EACCES : 0;
}

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old, const struct path *dir, struct dentry *new)
{
	struct act a = {
		.operation = OP_LINK, .kind = KIND_FILE, .object = OBJECT_PATH, .access_new = ACCESS_CREATE,
	};

	return on_move(&a, old, new, dir->mnt);
}

/* What is replaced at the new name is deleted; an exchange is a rename both ways. */
SEC("lsm/path_rename")
int BPF_PROG(path_rename, const struct path *old_dir, struct dentry *old, const struct path *new_dir,
	     struct dentry *new, unsigned int flags)
{
	struct act a = {
		.operation = OP_RENAME, .kind = KIND_FILE, .object = OBJECT_PATH,
		.access = ACCESS_DELETE, .access_new = ACCESS_CREATE,
	};

	if (new->d_inode)
		a.access_new |= ACCESS_DELETE;
	if (flags & RENAME_EXCHANGE) {
		a.exchange = 1;
		a.access |= ACCESS_CREATE;
	}
	return on_move(&a, old, new, new_dir->mnt);
}

SEC("lsm/file_truncate")
int BPF_PROG(file_truncate, struct file *file)
{
	return on_object(OP_TRUNCATE, file->f_path.dentry, file->f_path.mnt);
}

/*
 * Times and extended attributes: these hooks see no mount, so the filesystem's
 * own route decides. Under an overlay the upper file is changed by the kernel
 * with other credentials, after the overlay's own file was judged.
 */
static __always_inline int on_inode(__u8 operation, struct dentry *d)
{
	struct act a = {
		.operation = operation, .kind = KIND_FILE, .object = OBJECT_NONE, .access = ACCESS_WRITE,
	};
	struct task_struct *t = bpf_get_current_task_btf();
	struct agent *agent;
	struct label *l;
	int rc = enter(&l);
	__u32 n;

	if (rc <= 0)
		return rc < 0 ? -EACCES : 0;
	if (t->cred != t->real_cred || d->d_sb->s_flags & SB_KERNMOUNT)
		return 0;
	agent = agent_of(l->agent);
	l->leaf = (__u64)d;
	l->view = 0;
	n = climb_super(l);
	l->also = 0;
	l->state = l->reason ? 0 : run(l, agent ? agent->start[l->generation & 1] : 0, n, 0);
	settle(l, agent, &a);
	if (a.verdict == VERDICT_ALLOW) {
		count_allowed(l, a.kind);
		return 0;
	}
	by_task(&a, l);
	a.object = OBJECT_PATH;
	tell_inode(l, &a, d->d_sb->s_dev);
	return a.verdict == VERDICT_DENY ? -EACCES : 0;
}

/* Size, mode and owner have hooks that see the mount. */
static __always_inline int on_times(struct dentry *d, struct iattr *attr)
{
	if (!(attr->ia_valid & (ATTR_ATIME | ATTR_MTIME)) || attr->ia_valid & ATTR_SIZE)
		return 0;
	return on_inode(OP_TIMES, d);
}

/* The hook's arguments differ by kernel: the loader keeps the one that fits. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, struct dentry *dentry, struct iattr *attr)
{
	return on_times(dentry, attr);
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_idmap, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return on_times(dentry, attr);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry)
{
	return on_inode(OP_XATTR, dentry);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry)
{
	return on_inode(OP_XATTR, dentry);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry)
{
	return on_inode(OP_XATTR, dentry);
}

SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry)
{
	return on_inode(OP_XATTR, dentry);
}

#endif
