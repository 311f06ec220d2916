// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// decoys are the things of the kernel's that attacks need: addresses on the
// loopback interface, device nodes, mounts of old interfaces, a key.
func (f *field) decoys(t *testing.T) {
	t.Helper()
	// What this kernel does not have makes techniques impossible, which is told.
	script := `exec >/dev/null 2>&1; cd "$0"
for a in 169.254.169.254/32 fd00:9::1/128 fd00:9::2/128; do /run/busybox ip addr add $a dev lo; done
echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
echo 1 > /proc/sys/net/ipv6/conf/all/seg6_enabled; echo 1 > /proc/sys/net/ipv6/conf/lo/seg6_enabled
modprobe -a sctp vsock_loopback tun fuse binfmt_misc msr
mknod work/planted-disk b 7 0; mknod work/planted-memory c 1 1; chmod 666 work/planted-*
mkdir cgroup1; mount -t cgroup -o none,name=escape none cgroup1
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
ln -s /nowhere "$1/decoy"`
	must(t, exec.Command("/bin/bash", "-c", script+"; true", f.Dir, f.Pins).Run())
	t.Cleanup(func() {
		_ = unix.Unmount(f.Dir+"/cgroup1", unix.MNT_DETACH) // it may not be there
		os.Remove(f.decoyPin())
	})
	key, err := unix.AddKey("user", "escape-outside", []byte(secret), unix.KEY_SPEC_USER_KEYRING)
	must(t, err)
	f.Key = key
}

// newMap makes a BPF map that the accomplice has.
func newMap(t *testing.T) int {
	t.Helper()
	fd, err := createMap()
	must(t, err)
	return fd
}
