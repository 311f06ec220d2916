// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// LocalAgents is the prefix of the identities that the local trust domain
// gives: what follows it is the agent's name.
const LocalAgents = "spiffe://local/agent/"

// Filter selects events. A zero field selects all.
type Filter struct {
	Agent    string // a SPIFFE ID, or the last part of one
	Session  string
	Verdicts []string // any of them; events without a verdict are left out
	Kinds    []Kind   // any of them
	Since    time.Time
}

// Match says whether the event is selected.
func (f *Filter) Match(ev *Event) bool {
	return f.agent(ev.Agent) &&
		(f.Session == "" || ev.Session == f.Session) &&
		(len(f.Verdicts) == 0 || slices.Contains(f.Verdicts, ev.Verdict)) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, ev.Kind)) &&
		!ev.Time.Before(f.Since)
}

func (f *Filter) agent(id string) bool {
	return f.Agent == "" || id == f.Agent ||
		!strings.Contains(f.Agent, "://") && strings.HasSuffix(id, "/"+f.Agent)
}

func (f *Filter) empty() bool {
	return f.Agent == "" && f.Session == "" && len(f.Verdicts) == 0 && len(f.Kinds) == 0 && f.Since.IsZero()
}

// words returns byte strings of which a line must hold one of each group to
// match: looking for them is much cheaper than decoding the line.
func (f *Filter) words() [][][]byte {
	var groups [][][]byte
	add := func(values ...string) {
		var group [][]byte
		for _, v := range values {
			if v == "" || strings.IndexFunc(v, isRewritten) >= 0 {
				return
			}
			group = append(group, []byte(v))
		}
		if group != nil {
			groups = append(groups, group)
		}
	}
	add(f.Agent)
	add(f.Session)
	add(f.Verdicts...)
	for _, k := range f.Kinds {
		if len(f.Kinds) == 1 {
			add(string(k))
		}
	}
	return groups
}

// isRewritten says whether JSON may write the character in another way.
func isRewritten(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"\<>&`, r)
}

func mayMatch(line []byte, groups [][][]byte) bool {
	for _, group := range groups {
		if !slices.ContainsFunc(group, func(w []byte) bool { return bytes.Contains(line, w) }) {
			return false
		}
	}
	return true
}

// ShortAgent is the name of an agent of the local trust domain, and the SPIFFE
// ID without its scheme of any other.
func ShortAgent(id string) string {
	if name, ok := strings.CutPrefix(id, LocalAgents); ok {
		return name
	}
	return strings.TrimPrefix(id, "spiffe://")
}
