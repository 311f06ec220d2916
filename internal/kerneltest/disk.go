// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const ext4Size = 64 << 20 // bytes; the image is sparse

// TmpfsDir mounts a tmpfs for a test and returns its root. Unlike the guest's own
// root, an overlay over 9p, it gives files generation numbers and stable inodes.
func TmpfsDir(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	unmountAtEnd(t, directory)
	return directory
}

// Ext4Dir mounts a new ext4 file system of 64 MiB from a loop device for a test
// and returns its root. It skips where loop devices can't be had.
func Ext4Dir(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	RequireTool(t, "mkfs.ext4", "mount")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip(SkipReason + "ext4: no loop devices here")
	}
	work := t.TempDir()
	image, directory := filepath.Join(work, "image"), filepath.Join(work, "root")
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	makeExt4(t, image)
	if output, err := exec.Command("mount", "-o", "loop", image, directory).CombinedOutput(); err != nil {
		t.Skipf("%sext4: mount -o loop: %s", SkipReason, output)
	}
	unmountAtEnd(t, directory)
	return directory
}

func makeExt4(t testing.TB, image string) {
	t.Helper()
	file, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(ext4Size); err != nil {
		t.Fatalf("size the image: %v", err)
	}
	if output, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, output)
	}
}

func unmountAtEnd(t testing.TB, directory string) {
	t.Helper()
	t.Cleanup(func() {
		if err := unix.Unmount(directory, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}
