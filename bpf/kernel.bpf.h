/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel structures in use, with only the fields in use. Offsets come from
 * the running kernel's BTF (CO-RE), so order and gaps mean nothing here.
 */
#ifndef BAILIFF_KERNEL_BPF_H
#define BAILIFF_KERNEL_BPF_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
		__u64 hash_len;
	};
	const unsigned char *name;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	struct file_system_type *s_type;
	struct dentry *s_root;
};

struct inode {
	unsigned short i_mode;
	__u32 i_rdev;
	unsigned long i_ino;
	__u32 i_generation;
	struct super_block *i_sb;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	unsigned char d_iname[32];
	struct super_block *d_sb;
	void *d_fsdata;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	void *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_mode;
	unsigned int f_flags;
	void *private_data;
};

struct iattr {
	unsigned int ia_valid;
};

struct mm_struct {
	struct file *exe_file;
};

struct linux_binprm {
	struct file *file;
};

struct vm_area_struct {
	struct file *vm_file;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct seqcount {
	__u32 sequence;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[1];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct fs_struct {
	struct path root;
};

struct cred;

struct tty_driver {
	int major;
};

struct tty_struct {
	struct tty_driver *driver;
	struct tty_struct *link;
	void *driver_data;
};

struct tty_file_private {
	struct tty_struct *tty;
};

struct signal_struct {
	struct tty_struct *tty;
};

struct task_struct {
	int pid;
	int tgid;
	char comm[16];
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct hlist_node pid_links[4];
	struct css_set *cgroups;
	struct fs_struct *fs;
	struct mm_struct *mm;
	struct signal_struct *signal;
	const struct cred *cred;
	const struct cred *real_cred;
	void *bpf_storage;
};

struct pid {
	struct hlist_head tasks[4];
};

struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock_common {
	unsigned short skc_family;
	unsigned short skc_num;
	__be16 skc_dport;
	__be32 skc_rcv_saddr;
	__be32 skc_daddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_kern_sock : 1;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	short type;
	struct sock *sk;
};

struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[0];
};

struct unix_sock {
	struct unix_address *addr;
	struct path path;
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
	unsigned int msg_flags;
};

struct kern_ipc_perm;

struct kernel_siginfo;

#pragma clang attribute pop

/* Values of the kernel's own headers that no UAPI header carries. */
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_CREATED 0x100000
#define OPEN_FOR_EXEC 0x20 /* __FMODE_EXEC in f_flags */
#define O_ACCMODE 3
#define O_TRUNC 01000
#define O_TMPFILE_BIT 020000000 /* __O_TMPFILE */
#define SB_KERNMOUNT (1UL << 22)
#define S_IFMT 00170000
#define S_IFREG 0100000
#define S_IFCHR 0020000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_ISDIR(mode) (((mode) & S_IFMT) == S_IFDIR)
#define CGROUP2_SUPER_MAGIC 0x63677270
#define MQUEUE_MAGIC 0x19800202
#define ANON_INODE_FS_MAGIC 0x09041934
#define PROC_SUPER_MAGIC 0x9fa0
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define BTRFS_SUPER_MAGIC 0x9123683E
#define ATTR_SIZE (1 << 3)
#define ATTR_ATIME (1 << 4)
#define ATTR_MTIME (1 << 5)
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAY_WRITE 2
#define MAY_READ 4
#define RENAME_EXCHANGE 2

#define SIGKILL 9
#define CLONE_INTO_CGROUP 0x200000000ULL
#define CAP_OPT_NOAUDIT 2
#define CAP_SETPCAP 8
#define F_SETOWN 8
#define F_SETOWN_EX 15

#define EPERM 1
#define EACCES 13
#define EPROTONOSUPPORT 93

#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_MARK 36
#define IPV6_2292PKTOPTIONS 6
#define UDP_ENCAP 100
#define SO_KEEPALIVE 9
#define TCP_KEEPIDLE 4
#define TCP_KEEPINTVL 5
#define TCP_KEEPCNT 6
#define TCP_USER_TIMEOUT 18
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_SEQPACKET 5
#define MSG_FASTOPEN 0x20000000
#define PTRACE_MODE_NOAUDIT 4
#define NETLINK_ROUTE 0

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16

#endif
