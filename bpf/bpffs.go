// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bpffs is where the kernel offers a place to mount the BPF file system.
const bpffs = "/sys/fs/bpf"

// mountSource tells a mount that was made here from those of others.
const mountSource = "bailiff"

// makePinDir makes a directory on bpffs, which it mounts where nothing has yet.
func makePinDir(dir string) error {
	if dir == bpffs || strings.HasPrefix(dir, bpffs+"/") {
		if err := mountBPFFS(bpffs); err != nil {
			return err
		}
	}
	if strings.Contains(strings.TrimPrefix(dir, bpffs), ".") {
		return fmt.Errorf("make the pin directory %s: the BPF file system takes no names with a dot: choose another", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the pin directory: %w", err)
	}
	on, err := onBPFFS(dir)
	if err == nil && !on {
		err = fmt.Errorf("%s is not on a BPF file system: give one that is below %s", dir, bpffs)
	}
	if err != nil {
		return fmt.Errorf("check the pin directory: %w", err)
	}
	return nil
}

func mountBPFFS(at string) error {
	on, err := onBPFFS(at)
	if err == nil && !on {
		err = unix.Mount(mountSource, at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("this kernel has no BPF (CONFIG_BPF_SYSCALL)")
	}
	if err != nil {
		return fmt.Errorf("mount the BPF file system at %s: %w", at, err)
	}
	return nil
}

// Unmount unmounts the BPF file system that a directory of pins was on, if Load
// mounted it and nothing is on it any more.
func Unmount(pinDir string) error {
	if !strings.HasPrefix(pinDir, bpffs+"/") {
		return nil
	}
	return unmountBPFFS(bpffs)
}

func unmountBPFFS(at string) error {
	own, err := ownMount(at)
	if err != nil || !own {
		return err
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return fmt.Errorf("look for pins of others: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".debug") { // the kernel's own: no pin's name has a dot
			return nil
		}
	}
	if err := unix.Unmount(at, 0); err != nil {
		return fmt.Errorf("unmount the BPF file system at %s: %w: end what uses it (fuser -m %s), and `umount %s`", at, err, at, at)
	}
	return nil
}

// ownMount tells whether what is mounted on top at a path was mounted here.
func ownMount(at string) (own bool, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("find the BPF file system's mount: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		// 35 24 0:31 / /sys/fs/bpf rw - bpf bailiff rw
		mount, source, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); ok && len(fields) > 4 && fields[4] == at {
			own = strings.HasPrefix(source, "bpf "+mountSource+" ")
		}
	}
	return own, nil
}

func onBPFFS(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint32(st.Type) == unix.BPF_FS_MAGIC, nil
}
