// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
)

// environment merges what the policies of an agent say about variables: drops
// add up, a policy's own setting stands above its presets', and two policies must
// not set a variable to different values.
func (l *ruleList) environment(docs []*Document) {
	set := map[string]string{}
	by := map[string]*Document{}
	var drop []string
	for _, d := range docs {
		if d.Kind != KindAgentPolicy {
			continue
		}
		env := &d.Policy.Environment
		if env.dropGiven {
			drop = append(drop, env.Drop...)
		} else {
			drop = append(drop, DefaultDrop()...)
		}
		for _, name := range slices.Sorted(maps.Keys(env.Set)) {
			value := env.Set[name]
			if other := by[name]; other != nil && set[name] != value {
				l.problems = append(l.problems, Problem{
					Severity: Error, Pos: env.pos,
					Message: fmt.Sprintf("environment.set gives %s another value than policy %q, and both are about the same agent", shorten(name, maxQuoted), other.Name),
					Fix:     "set it in one of them only",
				})
				continue
			}
			set[name], by[name] = value, d
		}
	}
	for _, d := range docs {
		for _, use := range d.Policy.Presets {
			preset, err := loadPreset(use.Name)
			if err != nil {
				continue // reported where its lines are added
			}
			for name, value := range preset.Policy.Environment.Set {
				if _, ok := set[name]; !ok {
					set[name] = value
				}
			}
		}
	}
	slices.Sort(drop)
	l.env = Environment{Drop: slices.Compact(drop), Set: set}
}

// Drops reports whether the launcher keeps the variable of that name from the
// program.
func (e *Environment) Drops(name string) bool {
	return slices.ContainsFunc(e.Drop, func(g string) bool { return matchGlob(g, name) })
}
