/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The state of a directory is cached. A tag names the ruleset, the generation,
 * the directory (address, number and generation of its inode), the mount, and
 * the sequence counts of rename_lock and mount_lock: whatever can move the
 * directory to another path changes one of the two counts.
 */
#ifndef BAILIFF_DIRCACHE_BPF_H
#define BAILIFF_DIRCACHE_BPF_H

#define CACHE_STATE_BITS 20

static __always_inline __u64 mix(__u64 h, __u64 value)
{
	h = (h ^ value) * fixed.cache_key[1];
	return h ^ h >> 32;
}

/* The verifier allows no arithmetic on pointers; what comes back from memory is a number. */
static __always_inline __u64 number(struct label *l, const void *pointer)
{
	volatile __u64 *at = &l->at;

	*at = (__u64)pointer;
	return *at;
}

/*
 * Key of a directory in the cache: the low bits choose the slot, the rest is
 * the tag. 0: something is being moved. The mount names the file system: no
 * other takes its address without mount_lock's count telling.
 */
static __always_inline __u64 cache_tag(struct label *l, struct dentry *dir, struct vfsmount *mnt,
				       __u32 start, __u32 renames, __u32 mounts)
{
	struct inode *inode = dir->d_inode;
	__u64 h;

	if ((renames & 1) || (mounts & 1))
		return 0;
	h = mix(fixed.cache_key[0], number(l, inode));
	h = mix(h, inode->i_ino);
	h = mix(h, inode->i_generation);
	h = mix(h, number(l, mnt));
	h = mix(h, (__u64)renames << 32 | mounts);
	h = mix(h, l->generation ^ (__u64)start << 32);
	return h ?: 1;
}

/*
 * Nothing is cached of file systems whose inodes have no generation, which tells
 * a new one from an old one at the same address; of btrfs, whose subvolumes share
 * numbers; and of mounts that show a part of theirs, which have two routes.
 */
static __always_inline bool cacheable(struct dentry *dir, struct vfsmount *mnt)
{
	struct super_block *sb = mnt->mnt_sb;

	return dir->d_inode->i_generation && mnt->mnt_root == sb->s_root && sb->s_magic != BTRFS_SUPER_MAGIC;
}

static __always_inline __u32 cache_get(__u64 tag)
{
	__u32 slot = tag & (DIRCACHE - 1);
	__u64 *entry = bpf_map_lookup_elem(&dircache, &slot), word;

	if (!entry)
		return 0;
	word = *(volatile __u64 *)entry;
	if ((word ^ tag) >> CACHE_STATE_BITS)
		return 0;
	return word & ((1 << CACHE_STATE_BITS) - 1);
}

static __always_inline void cache_put(__u64 tag, __u32 state)
{
	__u32 slot = tag & (DIRCACHE - 1);
	__u64 *entry = bpf_map_lookup_elem(&dircache, &slot);

	if (entry && state)
		*(volatile __u64 *)entry = (tag & ~((1ULL << CACHE_STATE_BITS) - 1)) | state;
}

#endif
