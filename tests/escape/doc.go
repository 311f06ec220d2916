// SPDX-License-Identifier: Apache-2.0

// Package escape is the escape suite: every technique by which a process could
// get out of its session that we know of, performed for real, by programs that
// run inside sessions of a live bailiffd. It needs the full tier and a machine
// that may be wrecked: it runs in the guests of scripts/vm, by `make escape`.
//
// A technique is an attack and its legitimate neighbour, the same thing within
// the policy. Each is tried as root and as an ordinary user
//
//   - in a session that `bailiff run` started;
//   - in one that has the kernel's label alone, without the filter of system
//     calls and without the loss of privileges at launch, as a process that was
//     adopted would be: the BPF programs are all that holds it;
//   - outside of every session, where the attack must succeed: otherwise its
//     failure inside proves nothing.
//
// What a session was denied must be in the log. The results are kept in
// docs/techniques.json, from which docs/techniques.md is generated: nothing is
// called stopped there that wasn't seen to be stopped.
package escape
