// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strconv"
)

// Document is one YAML document: an AgentPolicy or a Guardrail. Documents come
// from Parse, which fills in what the compiler needs beside what was written.
type Document struct {
	Kind      Kind
	Name      string // metadata.name
	Policy    AgentPolicySpec
	Guardrail GuardrailSpec
	Pos       Position // where the document starts
}

// Kind is the kind of a document.
type Kind string

// The kinds of documents. Presets are embedded and never read from a file.
const (
	KindAgentPolicy Kind = "AgentPolicy"
	KindGuardrail   Kind = "Guardrail"
	kindPreset      Kind = "Preset"
)

// Subjects returns the SPIFFE IDs and patterns a document is about.
func (d *Document) Subjects() []string {
	if d.Kind == KindGuardrail {
		return d.Guardrail.Subjects
	}
	return []string{d.Policy.Subject.SPIFFEID}
}

// Files returns the files lines of a document of either kind.
func (d *Document) Files() []FileLine {
	if d.Kind == KindGuardrail {
		return d.Guardrail.Files
	}
	return d.Policy.Files
}

// Network returns the network lines of a document of either kind.
func (d *Document) Network() []NetworkLine {
	if d.Kind == KindGuardrail {
		return d.Guardrail.Network
	}
	return d.Policy.Network
}

// Metadata names a document.
type Metadata struct {
	// Name is unique among all documents applied together. Lower-case letters,
	// digits, "-" and "."; it starts every rule id that an event carries.
	Name string `json:"name"`
}

// AgentPolicySpec is what the agents of one subject may do. Whatever no line
// allows is denied.
type AgentPolicySpec struct {
	// Subject says which agents the policy is about. Several policies on one
	// agent add up.
	Subject Subject `json:"subject"`
	// Mode is enforce (the default), or audit: allow, and record what would have
	// been denied. An agent is only audited if all its policies say audit;
	// guardrails are enforced in either mode.
	Mode Mode `json:"mode,omitempty"`
	// Presets are named sets of lines that ship with this build. They are added
	// to the policy's own.
	Presets []PresetUse `json:"presets,omitempty"`
	// Capabilities are those that the session keeps of what its user has. Without
	// it a session has none, even one of root's. Names are as in capabilities(7), with
	// or without CAP_, in any case; those of several policies add up.
	Capabilities Capabilities `json:"capabilities,omitempty"`
	// Files says what may be done to which paths.
	Files []FileLine `json:"files,omitempty"`
	// Network says what may be connected to and listened on.
	Network []NetworkLine `json:"network,omitempty"`
	// Environment says which variables the launcher keeps from the program and
	// which it sets.
	Environment Environ `json:"environment,omitzero"`
}

// GuardrailSpec is what no policy, however deep its rule, and no grant can open.
type GuardrailSpec struct {
	// Subjects are the agents it holds for: SPIFFE IDs, exact or ending in "/*".
	Subjects []string `json:"subjects"`
	// Files are deny lines only.
	Files []FileLine `json:"files,omitempty"`
	// Network are deny lines only.
	Network []NetworkLine `json:"network,omitempty"`
}

// Subject is an agent or a family of agents.
type Subject struct {
	// SPIFFEID is a SPIFFE ID, exact or ending in "/*" for everything below. A
	// bare NAME means spiffe://local/agent/NAME.
	SPIFFEID string `json:"spiffeID"`
}

// Mode says whether a policy is enforced.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce"
	Audit   Mode = "audit"
)

// PresetUse is the mention of a preset.
type PresetUse struct {
	Name string
	Pos  Position
}

// FileLine allows or denies rights on a path and everything below it.
type FileLine struct {
	// Path is absolute and clean. "*" and "?" match within one component, "**"
	// as a whole component matches any number of them; a backslash makes the next
	// character literal. It need not exist yet.
	Path string `json:"path"`
	// Allow lists the rights given. A line has either allow or deny.
	Allow Access `json:"allow,omitempty"`
	// Deny lists the rights taken.
	Deny Access `json:"deny,omitempty"`

	Pos     Position `json:"-"`
	pattern pattern
}

// NetworkLine allows or denies connecting or listening.
type NetworkLine struct {
	// Allow is connect or listen. A line has either allow or deny.
	Allow Action `json:"allow,omitempty"`
	// Deny is connect or listen.
	Deny Action `json:"deny,omitempty"`
	// CIDR is the network of the peer, or for listen of the local address. An
	// IPv4 prefix never covers IPv6 addresses, nor the other way round.
	CIDR string `json:"cidr,omitempty"`
	// IP is one address.
	IP string `json:"ip,omitempty"`
	// Host is a DNS name, or "*." and a DNS name for all names below it. This
	// build checks it but can't enforce it, and refuses to apply it.
	Host string `json:"host,omitempty"`
	// Unix is the absolute path of a Unix socket, with wildcards as in files, or
	// "@" and a name for an abstract one.
	Unix string `json:"unix,omitempty"`
	// To is self: whatever this session itself listens on.
	To string `json:"to,omitempty"`
	// Ports are port numbers and ranges "LOW-HIGH". Without them a line is about
	// all ports.
	Ports []PortSpan `json:"ports,omitempty"`
	// Protocol is tcp, udp or any (both). Without it an allow line is about tcp
	// and a deny line about any.
	Protocol Protocol `json:"protocol,omitempty"`

	Pos      Position `json:"-"`
	prefixes []netip.Prefix
	pattern  pattern // of Unix; absent for the rest
}

// Action is what a network line is about.
type Action string

// The actions.
const (
	ActionConnect Action = "connect"
	ActionListen  Action = "listen"
)

// Protocol names the transports a network line is about.
type Protocol string

// The protocols.
const (
	ProtocolTCP Protocol = "tcp"
	ProtocolUDP Protocol = "udp"
	ProtocolAny Protocol = "any"
)

// PortSpan is the ports Low to High, both included.
type PortSpan struct {
	Low, High uint16
}

// String returns "443" or "8000-8099".
func (s PortSpan) String() string {
	if s.Low == s.High {
		return strconv.Itoa(int(s.Low))
	}
	return strconv.Itoa(int(s.Low)) + "-" + strconv.Itoa(int(s.High))
}

// Environ is what becomes of variables at launch.
type Environ struct {
	// Drop lists globs over names of variables that are not handed on. Without it
	// the default holds: `*_TOKEN`, `*_KEY`, `*_SECRET`, `AWS_*`.
	Drop []string `json:"drop,omitempty"`
	// Set gives variables a value, after dropping.
	Set map[string]string `json:"set,omitempty"`

	dropGiven bool
	pos       Position
}

// DefaultDrop returns the globs that hold where a policy has no
// environment.drop.
func DefaultDrop() []string {
	return []string{"*_TOKEN", "*_KEY", "*_SECRET", "AWS_*"}
}
