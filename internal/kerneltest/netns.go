// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NetNS moves the test into a network namespace of its own, where only loopback
// exists and is up, until the test ends. The test's goroutine is locked to its
// thread; goroutines it starts are elsewhere, commands it starts are inside.
func NetNS(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		t.Fatalf("open the network namespace: %v", err)
	}
	inside, err := netns.New()
	if err != nil {
		runtime.UnlockOSThread()
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		defer home.Close()
		defer inside.Close()
		if err := netns.Set(home); err != nil {
			// The thread stays locked and ends with the goroutine.
			t.Errorf("leave the network namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	})
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatalf("find loopback: %v", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		t.Fatalf("bring loopback up: %v", err)
	}
}
