// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"testing"
)

// TestSystem runs what can share one daemon: starting one costs a guest long.
// The order matters only where it is said.
func TestSystem(t *testing.T) {
	h := newHost(t, options{config: fmt.Sprintf("maxProcesses: %d\n", maxProcesses)})
	for _, part := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"programs", testPrograms},
		{"guardrail", testGuardrail},
		{"canary", testCanary},
		{"grants", testGrants},
		{"adopt", testAdopt},
		{"lifecycle", testLifecycle},
		{"processes", testProcesses},
		{"upgrade", testUpgrade},
		{"other daemons", testOthers},
		{"cgroup", testCgroup},
		{"stale pins", testStalePins},
		{"input", testInput},
		{"boot", testBoot},
		{"interrupted", testInterrupted},
		{"capabilities", testCapabilities},
		{"kept", testKept},
		{"remove", testRemove},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, h) })
	}
}
