// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// roleVariable makes the test binary something else than the test: see roles.
const roleVariable = "BAILIFF_ESCAPE_ROLE"

// A label is put on the first thread, and an exec must come from it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	play, ok := roles()[role]
	if !ok {
		fmt.Fprintln(os.Stderr, "no role", role)
		os.Exit(2)
	}
	if err := play(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
}

// roles are what the test binary can be beside the test.
func roles() map[string]func() error {
	return map[string]func() error{
		"join":   join,   // enters a session without the launcher's help, then works
		"work":   work,   // tries techniques as it is told
		"try":    try,    // tries one, in a process of its own
		"victim": victim, // has secrets
	}
}
