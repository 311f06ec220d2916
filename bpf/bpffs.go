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

// makePinDir makes a directory on bpffs, which it mounts where nothing has yet.
func makePinDir(dir string) error {
	if dir == bpffs || strings.HasPrefix(dir, bpffs+"/") {
		if err := mountBPFFS(); err != nil {
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

func mountBPFFS() error {
	on, err := onBPFFS(bpffs)
	if err == nil && !on {
		err = unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("this kernel has no BPF (CONFIG_BPF_SYSCALL)")
	}
	if err != nil {
		return fmt.Errorf("mount the BPF file system at %s: %w", bpffs, err)
	}
	return nil
}

func onBPFFS(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint32(st.Type) == unix.BPF_FS_MAGIC, nil
}
