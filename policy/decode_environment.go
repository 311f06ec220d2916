// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

func (d *decoder) environment(n *yaml.Node) Environ {
	env := Environ{pos: d.pos(n)}
	d.object(n, "environment", []string{"drop", "set"}, func(key string, v *yaml.Node) {
		if key == "drop" {
			env.Drop, env.dropGiven = d.drop(v), true
		} else {
			env.Set = d.set(v)
		}
	})
	return env
}

func (d *decoder) drop(n *yaml.Node) []string {
	var drop []string
	d.list(n, "environment.drop", func(v *yaml.Node) {
		s, ok := d.text(v, "an entry of environment.drop")
		switch {
		case !ok:
		case !validVariable(strings.NewReplacer("*", "A", "?", "A").Replace(s)):
			d.errorf(v, `a variable's name is letters, digits and "_"; "*" and "?" are wildcards`, "%q matches no variable's name", s)
		default:
			drop = append(drop, s)
		}
	})
	if len(drop) > MaxVariables {
		d.errorf(n, "join them with wildcards", "environment.drop has %d entries, more than the %d possible", len(drop), MaxVariables)
	}
	return drop
}

func (d *decoder) set(n *yaml.Node) map[string]string {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, "write it as {NAME: VALUE}", "environment.set must be a mapping, not %s", describe(n))
		return nil
	}
	set := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		value, ok := d.text(v, "the value of a variable")
		switch _, twice := set[k.Value]; {
		case k.Kind != yaml.ScalarNode || !validVariable(k.Value):
			d.errorf(k, `a variable's name is letters, digits and "_", and starts with no digit`, "%q is no variable's name", k.Value)
		case twice:
			d.errorf(k, "remove one of them", "variable %q is set twice", k.Value)
		case len(value) > MaxVariable || strings.ContainsRune(value, 0):
			d.errorf(v, "shorten it", "the value of %q is too long or holds a NUL", k.Value)
		case ok:
			set[k.Value] = value
		}
	}
	if len(set) > MaxVariables {
		d.errorf(n, "set fewer", "environment.set has %d entries, more than the %d possible", len(set), MaxVariables)
	}
	return set
}

func validVariable(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && c != '_' && (!isDigit(c) || i == 0) {
			return false
		}
	}
	return s != ""
}
