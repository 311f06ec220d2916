// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// SkipReason starts the message of every skip made here; the reason follows, on
// the same line: "SKIP-REASON: tool: etcd is missing".
const SkipReason = "SKIP-REASON: "

// RequireRoot skips a test that needs effective user 0.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(SkipReason + "root: needs user 0")
	}
}

// RequireFullTier skips a test that needs LSM programs which run. It implies
// RequireRoot.
func RequireFullTier(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	if err := lsmRuns(); err != nil {
		t.Skipf("%sfull tier: %v", SkipReason, err)
	}
}

// RequireTool skips a test that needs programs which aren't in PATH.
func RequireTool(t testing.TB, names ...string) {
	t.Helper()
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return
	}
	list := strings.Join(missing, ", ")
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing tool %s; scripts/deps programs installs it", list)
	}
	t.Skipf("%stool: %s is missing; scripts/deps programs installs it", SkipReason, list)
}

// InVM tells whether this is a guest of scripts/vm.
func InVM() bool {
	line, err := os.ReadFile("/proc/cmdline")
	return err == nil && strings.Contains(string(line), " bailiff.vm=1 ")
}

// Often returns how many times a test should do what costs a second, or ten in a
// guest without KVM: usually so many, in a guest few, and as many as convince if
// BAILIFF_LONG is set.
func Often(convincing, usual, guest int) int {
	switch {
	case os.Getenv("BAILIFF_LONG") != "":
		return convincing
	case InVM():
		return guest
	}
	return usual
}
