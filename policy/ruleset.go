// SPDX-License-Identifier: Apache-2.0

package policy

import "net/netip"

// Access is a set of rights on a file, a directory or a Unix socket.
// The bit values are part of the kernel ABI (ACCESS_* in bpf/abi.h).
type Access uint8

// The access words of a policy document, in the order they are printed.
// Connect is never written in a files rule: a network rule with unix:
// compiles to it.
const (
	Read Access = 1 << iota
	Write
	Create
	Delete
	Execute
	Connect

	// NumAccess is the number of access bits.
	NumAccess = 6
)

// Direction says which end of a connection a network rule is about.
type Direction uint8

// Connect judges the peer's address, Listen the local one.
const (
	Outbound Direction = iota
	Inbound
)

// Transport is an IP protocol number, as in the IP header.
type Transport uint8

// The transports a rule can name.
const (
	TCP Transport = 6
	UDP Transport = 17
)

// RuleNumber indexes Ruleset.Rules. Zero means that no rule matched: the
// default deny.
type RuleNumber uint32

// Rule describes one allow or deny line, for events, listings and advice.
type Rule struct {
	ID     string   // "NAME/files/2", "NAME/network/0", "NAME/preset/git/3", "builtin/metadata/0"; unique in a Ruleset, stable while the line keeps its place
	Policy string   // metadata.name of the document, or "builtin"
	Guard  bool     // from a Guardrail: no policy and no grant opens it
	Deny   bool     // a deny line
	Text   string   // the line in one-line YAML flow form, as the user would write it
	Pos    Position // where it stands; for a preset, the line that names the preset
}

// Position is a place in a policy file. Line and Column count from 1.
type Position struct {
	File         string
	Line, Column int
}

// Ruleset is what all policies and guardrails of one agent compile to: pure
// data, independent of any host. A kernel decides by it; Evaluate (the
// reference evaluator) decides the same without compiling.
type Ruleset struct {
	Agent        string // the SPIFFE ID it is for, or a pattern ending in "/*"
	Audit        bool   // allow, and record what would have been denied; guardrails deny all the same
	Rules        []Rule // Rules[0] is the default deny
	Files        Automaton
	Net          NetTable
	Self         RuleNumber   // the `to: self` rule, or 0
	Capabilities Capabilities // what a session may keep of its user's
	Env          Environment
	Digest       [32]byte // SHA-256 over everything that decides; equal rulesets have equal digests
}

// Environment says which variables the launcher drops (globs over names) and
// which it sets.
type Environment struct {
	Drop []string
	Set  map[string]string
}

// Automaton decides about paths. It is a deterministic automaton whose
// symbols are path components: start in Start, follow one transition a
// component from the root down, and read the verdict off the state reached.
// Precedence (the deepest match wins, an exact name beats a pattern at the same
// depth, a tie denies, guardrails above all) is already resolved in the states.
//
// From state s on component c: the edge {s, c} if there is one; else, when
// s.Glob is not zero, run the byte automaton Globs from node s.Glob over the
// bytes of c, and with the Class of the node reached, if not zero, take the
// glob edge {s, Class}; else go to s.Default.
//
// The object "/" itself is state Start. An abstract Unix socket NAME is the two
// components "\x00" and NAME from Start; Any and All of the states before leave
// these out, as they are not below "/". Components on procfs that are the
// process ids of the session's own processes are replaced by "self".
type Automaton struct {
	Start     uint32 // always 0
	States    []State
	Edges     []Edge     // sorted by From, Name; unique
	GlobEdges []GlobEdge // sorted by From, Class; unique
	Globs     []GlobNode // Globs[0] is the dead node: every byte stays there, Class 0
}

// State is what is known after the components read so far.
type State struct {
	Default uint32                // the next state for a component with no edge
	Glob    uint16                // node to start the byte automaton at; 0: no glob edges here
	Allow   Access                // rights on the object that ends here
	Deny    Access                // rights denied by an explicit deny line (not by default)
	Guard   Access                // subset of Deny that comes from a Guardrail
	Any     Access                // union of Allow over this state and every state reachable from it
	All     Access                // intersection of Allow over the same
	Rule    [NumAccess]RuleNumber // for each right, the rule that decided it (allow or deny)
}

// Edge is the transition from a state on a literal component.
type Edge struct {
	From uint32
	Name string // one component, 1 to 255 bytes (107 for an abstract socket), or "\x00"
	To   uint32
}

// GlobEdge is the transition on a component that the byte automaton classed.
type GlobEdge struct {
	From  uint32
	Class uint16
	To    uint32
}

// GlobNode is a node of the byte automaton.
type GlobNode struct {
	Next  [256]uint16
	Class uint16 // non-zero: the component read so far belongs to this class
}

// NetTable decides about IP addresses: the longest prefix that contains the
// address names a port set (with everything inherited from shorter prefixes
// already merged in); the port range in it that contains the port decides.
// No prefix or no range: default deny.
type NetTable struct {
	Prefixes []NetPrefix
	PortSets [][]PortRange // each sorted by Transport, Low; ranges do not overlap
}

// NetPrefix is one prefix. IPv4 prefixes are IPv4 (not mapped).
type NetPrefix struct {
	Direction Direction
	Prefix    netip.Prefix
	Ports     int // index into PortSets
}

// PortRange decides for Low..High inclusive.
type PortRange struct {
	Transport Transport
	Low, High uint16
	Allow     bool
	Guard     bool // a guardrail's deny; enforced in audit mode too
	Rule      RuleNumber
}
