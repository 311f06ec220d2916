// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"path/filepath"
	"strings"
	"testing"

	"bailiff.dev/bailiff/internal/audit"
)

// testCapabilities: root's sessions have what their policies name, and no more.
func testCapabilities(t *testing.T, h *host) {
	// The shell reads its own status: on the basic tier no other process may.
	const script = `while read -r name value; do case $name in Cap???:) printf '%s %x ' "$name" "0x$value" ;; esac; done </proc/self/status
touch owned && chown 65534 owned`
	named := func(capabilities string) string {
		return strings.Replace(simplePolicy, "  files:", "  "+capabilities+"\n  files:", 1)
	}
	for _, x := range []struct {
		name, policy, sets, said string
		code                     int
	}{
		{"nothing named", simplePolicy, "CapInh: 0 CapPrm: 0 CapEff: 0 CapBnd: 0 CapAmb: 0 ", "", 1},
		{"chown named", named("capabilities: [cap_chown]"), "CapInh: 1 CapPrm: 1 CapEff: 1 CapBnd: 1 CapAmb: 0 ", "CHOWN", 0},
		{"others named", named("capabilities: [DAC_OVERRIDE, SETUID]"), "CapInh: 82 CapPrm: 82 CapEff: 82 CapBnd: 82 CapAmb: 0 ", "DAC_OVERRIDE, SETUID", 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			h.enforce(t, x.policy)
			s := h.shell(t, "worker", script)
			if s.stdout != x.sets || s.code != x.code {
				t.Errorf("%q, chown ended with %d\n%s", s.stdout, s.code, s.stderr)
			}
			if started := s.events(t)[0]; started.Kind != audit.Session || started.Fields["capabilities"] != x.said {
				t.Errorf("the log says of it: %+v", started)
			}
			if again := h.shell(t, "worker", "rm -f "+filepath.Join(h.work, "owned")); again.code != 0 {
				t.Errorf("remove it: %+v", again.result)
			}
		})
	}
	h.apply(t, named("capabilities: [SYS_ADMIN]")).ended(t, 2).says(t, "with it a session could mount file systems")
}
