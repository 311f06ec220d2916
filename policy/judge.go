// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"path"
	"strings"
)

// JudgePath decides about rights on one object as a kernel that runs the ruleset
// would. The path is absolute and clean, with links resolved, as it is on the
// host's root; an abstract Unix socket is "@" and its name. On procfs the caller
// writes "self" for the process ids of the session's own processes.
//
// Several rights are all needed: the decision is that of the one that is denied
// most firmly (by a Guardrail, else by a deny line, else by default), of equals
// the first in the order of the bits; its right is in Decision.Right. Whether an
// agent in audit mode is let through (Audit, and not Decision.Guard) is left to
// the caller. An error means that the path or the rights can't be judged: deny.
func (r *Ruleset) JudgePath(path string, access Access) (Decision, error) {
	components, err := splitObject(path)
	if err != nil {
		return Decision{}, fmt.Errorf("judge path %q: %w", path, err)
	}
	if access == 0 || access >= 1<<NumAccess {
		return Decision{}, fmt.Errorf("judge path %q: no known right is asked for: say which", path)
	}
	state := &r.Files.States[r.Files.Walk(components)]
	var worst Decision
	for left := access; left != 0; left &= left - 1 {
		d := state.decision(left & -left)
		if worst.Right == 0 || d.firmness() > worst.firmness() {
			worst = d
		}
	}
	return worst, nil
}

// decision is the state's about one right.
func (s *State) decision(right Access) Decision {
	return Decision{
		Allow: s.Allow&right != 0, Guard: s.Guard&right != 0,
		Right: right, Rule: s.Rule[bits.TrailingZeros8(uint8(right))],
	}
}

// JudgeAddress decides about connecting to an address and port, or about
// listening on them. An IPv4-mapped address counts as IPv4. What `to: self`
// allows depends on who listens, and is not part of it: where Self is not 0, an
// address of this host that is denied by default may still be the session's own.
func (r *Ruleset) JudgeAddress(direction Direction, addr netip.AddrPort, transport Transport) Decision {
	found, ok := r.Net.Lookup(direction, addr.Addr().Unmap().WithZone(""), addr.Port(), transport)
	if !ok {
		return Decision{}
	}
	return Decision{Allow: found.Allow, Guard: found.Guard, Rule: found.Rule}
}

// Explicit reports whether a line denies, and not only that none allows.
func (d Decision) Explicit() bool { return !d.Allow && d.Rule != 0 }

// firmness orders decisions: allowed, denied by default, by a line, by a Guardrail.
func (d Decision) firmness() int {
	switch {
	case d.Guard:
		return 3
	case d.Explicit():
		return 2
	case !d.Allow:
		return 1
	}
	return 0
}

// splitObject returns an absolute path, or "@" and an abstract name, as the
// components that an Automaton takes.
func splitObject(text string) ([]string, error) {
	if name, abstract := strings.CutPrefix(text, "@"); abstract {
		if name == "" {
			return nil, errors.New("the abstract name is empty: name a socket")
		}
		return []string{abstractName, name}, nil
	}
	switch {
	case strings.Contains(text, "\x00"):
		return nil, errors.New("it contains a NUL, which no path can: remove it")
	case !strings.HasPrefix(text, "/"):
		return nil, errors.New("it is not absolute: write it from the host's root")
	case path.Clean(text) != text:
		return nil, fmt.Errorf("it is not clean: write %q", path.Clean(text))
	case text == "/":
		return nil, nil
	}
	return strings.Split(text[1:], "/"), nil
}
