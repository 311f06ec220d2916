// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"time"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// Limits on what one grant is for.
const (
	maxResources  = 16 // of each kind
	maxGrantPorts = 64 // of one address
)

// requested reads what a grant is asked for. Its error says what would be right.
func requested(m *controlv1.IssueGrantRequest, maxTTL time.Duration) (*grant, error) {
	x := &grant{Uses: m.Uses, Kill: m.KillMapped, Reason: m.Reason}
	if len(m.Files)+len(m.Network) == 0 {
		return nil, errors.New("the grant is for nothing: name addresses (--connect 10.0.0.5:443) or files (--file /data:read)")
	}
	if len(m.Files) > maxResources || len(m.Network) > maxResources {
		return nil, fmt.Errorf("the grant names %d files and %d addresses: %d of each are possible, issue several", len(m.Files), len(m.Network), maxResources)
	}
	if len(m.Reason) > maxValue {
		return nil, fmt.Errorf("the reason has %d bytes: %d are possible", len(m.Reason), maxValue)
	}
	if x.Kill && len(m.Files) == 0 {
		return nil, errors.New("only files can be mapped: leave --kill-mapped out, or grant a file")
	}
	switch x.TTL = m.Ttl.AsDuration(); {
	case m.Ttl == nil || x.TTL <= 0:
		return nil, errors.New("say how long it lasts: --ttl 10m")
	case m.Ttl.CheckValid() != nil || x.TTL > maxTTL:
		return nil, fmt.Errorf("%v is too long: a grant lasts at most %v (grants.maxTTL in bailiffd's configuration)", x.TTL, maxTTL)
	}
	for _, f := range m.Files {
		file, err := requestedFile(f)
		if err != nil {
			return nil, err
		}
		x.Files = append(x.Files, file)
	}
	for _, n := range m.Network {
		network, err := requestedNetwork(n)
		if err != nil {
			return nil, err
		}
		x.Network = append(x.Network, network)
	}
	return x, nil
}

func requestedFile(m *controlv1.FileAccess) (f grantedFile, err error) {
	if _, err := policy.ParsePath(m.Path); err != nil {
		return f, fmt.Errorf("path %q: %w", m.Path, err)
	}
	f.Path = m.Path
	if len(m.Access) == 0 {
		return f, fmt.Errorf("path %q: say what it may be used for: read, write, create, delete, execute", m.Path)
	}
	for _, word := range m.Access {
		right, fix, ok := policy.ParseAccess(word)
		if !ok {
			return f, fmt.Errorf("path %q: %q is no access word: %s", m.Path, word, fix)
		}
		f.Access |= right
	}
	return f, nil
}

func requestedNetwork(m *controlv1.NetworkAccess) (n grantedNetwork, err error) {
	if n.Prefix, err = policy.ParseAddress(m.Address); err != nil {
		return n, fmt.Errorf("address %q: %w", m.Address, err)
	}
	var ok bool
	if n.Transport, ok = transportOf(m.Protocol); !ok {
		return n, fmt.Errorf("protocol %q: it is tcp or udp", m.Protocol)
	}
	for _, text := range m.Ports {
		span, err := policy.ParsePorts(text)
		if err == nil && span.Low == 0 {
			err = errors.New("0 is no port to connect to: name no ports to mean all of them")
		}
		if err != nil {
			return n, fmt.Errorf("port %q: %w", text, err)
		}
		n.Ports = append(n.Ports, span)
	}
	if count := len(n.eachPort()); count > maxGrantPorts {
		return n, fmt.Errorf("%s: these are %d ports: %d are possible, or all of them (%s:*)", m.Address, count, maxGrantPorts, m.Address)
	}
	return n, nil
}

// weighGrant compares a grant with what judges the session's agent anyhow. An
// error says that it would have no effect; notes are about parts of it.
func weighGrant(x *grant, r *policy.Ruleset) (notes []string, err error) {
	if r == nil {
		return nil, nil
	}
	if r.Audit {
		notes = append(notes, "the policy is in audit mode: but for guardrails nothing is denied, and nothing ends with the grant")
	}
	weigh := func(what string, s policy.Standing) {
		switch {
		case err != nil:
		case s.Denied != nil:
			err = fmt.Errorf("a grant of %s would have no effect: %s", what, deniedBy(s.Denied))
		case s.Allowed:
			notes = append(notes, what+" is allowed without the grant")
		case s.Within != nil:
			notes = append(notes, fmt.Sprintf("%s: a part of it stays denied by %s", what, s.Within.ID))
		}
	}
	for _, f := range x.Files {
		weigh(f.String(), r.StandingFile(components(f.Path), f.Access))
	}
	for i := range x.Network {
		n := &x.Network[i]
		if len(n.Ports) == 0 {
			weigh("connect "+n.String(), r.StandingNet(n.Prefix, policy.PortSpan{Low: 0, High: 65535}, n.Transport))
		}
		for _, span := range n.Ports {
			one := grantedNetwork{n.Prefix, []policy.PortSpan{span}, n.Transport}
			weigh("connect "+one.String(), r.StandingNet(n.Prefix, span, n.Transport))
		}
	}
	return notes, err
}

func deniedBy(rule *policy.Rule) string {
	switch {
	case rule.Guard:
		return "guardrail " + rule.ID + " denies it, and neither a policy nor a grant can open that"
	case rule.Pos.File != "":
		return fmt.Sprintf("%s denies it, at %s, and a grant opens only what no line speaks of: change that line", rule.ID, rule.Pos)
	}
	return rule.ID + " denies it, and a grant opens only what no line speaks of: allow exactly that address in a policy"
}
