// SPDX-License-Identifier: Apache-2.0

// Package policy parses, checks and compiles Bailiff's policy documents.
//
// It is pure: it opens no files, reads no clock and knows no kernel. A caller
// hands it the bytes of YAML files and gets back documents and every problem
// found, each with its place ([Parse], [Check]); it hands over documents and an
// agent's SPIFFE ID and gets back a [Ruleset], the tables a kernel decides by
// ([Compile]).
//
// How rules are resolved, in the words that [Reference] implements and that
// [Compile] must agree with:
//
// A files rule covers the path it names and everything below it. For each right
// the rule that matched the most components of the path wins; at the same depth
// a rule without wildcards beats one with; what is still tied is denied. What no
// rule allows is denied. A Guardrail's deny holds whatever else matches.
//
// A network rule covers the addresses in its prefix and the ports in its ranges.
// Of the rules that cover an address, port and transport, the longest prefix
// wins; a tie is denied. A Guardrail's deny holds whatever else matches. The
// addresses at which clouds serve credentials are denied unless a policy names
// exactly that address.
package policy
