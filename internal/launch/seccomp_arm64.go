// SPDX-License-Identifier: Apache-2.0

package launch

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_AARCH64
	foreignCalls = 0 // 32-bit programs have an architecture of their own
)

func machineRules() []callRule { return nil }
