// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// What was mounted here is unmounted, once nothing is on it; nothing else is.
func TestUnmount(t *testing.T) {
	kerneltest.RequireRoot(t)
	at := t.TempDir()
	mounted := func() bool {
		t.Helper()
		on, err := onBPFFS(at)
		if err != nil {
			t.Fatal(err)
		}
		return on
	}
	unmount := func() {
		t.Helper()
		if err := unmountBPFFS(at); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("bpf", at, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := mountBPFFS(at); err != nil {
		t.Fatal(err)
	}
	if unmount(); !mounted() {
		t.Error("what somebody else had mounted is gone")
	}
	if err := unix.Unmount(at, 0); err != nil || mounted() {
		t.Fatalf("something was mounted over it: %v", err)
	}
	if err := mountBPFFS(at); err != nil || !mounted() {
		t.Fatalf("it is not mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	pins := filepath.Join(at, "theirs")
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	if unmount(); !mounted() {
		t.Error("it is gone, with what was on it")
	}
	if err := os.Remove(pins); err != nil {
		t.Fatal(err)
	}
	if unmount(); mounted() {
		t.Error("it is still mounted")
	}
}
