// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v3"
)

func (d *decoder) fileLines(n *yaml.Node) []FileLine {
	var lines []FileLine
	d.list(n, "files", func(v *yaml.Node) {
		before := d.errors
		if l := d.fileLine(v); d.errors == before {
			lines = append(lines, l)
		} else {
			// Keep the place of the lines that follow.
			lines = append(lines, FileLine{Pos: d.pos(v)})
		}
	})
	return lines
}

func (d *decoder) fileLine(n *yaml.Node) FileLine {
	l := FileLine{Pos: d.pos(n)}
	known := []string{"path", "allow", "deny"}
	if d.preset {
		known = append(known, "file")
	}
	seen := d.object(n, "a files line", known, func(key string, v *yaml.Node) {
		switch key {
		case "path":
			l.Path, l.pattern = d.path(v, key)
		case "file":
			l.Path, l.pattern = d.path(v, key)
			l.pattern.file = len(l.pattern.components) > 0
		case "allow":
			l.Allow = d.access(v, key)
		case "deny":
			l.Deny = d.access(v, key)
		}
	})
	if n.Kind == yaml.MappingNode {
		if d.preset {
			d.oneOf(n, seen, "a files line", "path", "file")
		} else {
			d.require(n, seen, "path", `write path: /PATH`)
		}
		d.oneOf(n, seen, "a files line", "allow", "deny")
	}
	return l
}

// oneOf reports a line that has not exactly one of some fields, and returns the
// one it has.
func (d *decoder) oneOf(n *yaml.Node, seen []string, what string, fields ...string) string {
	var have []string
	for _, s := range seen {
		for _, f := range fields {
			if s == f {
				have = append(have, f)
			}
		}
	}
	switch len(have) {
	case 0:
		d.errorf(n, "add one", "%s needs one of %s", what, joinFields(fields))
		return ""
	case 1:
		return have[0]
	}
	d.errorf(n, "split it into one line for each", "%s has %s, but may have only one of them", what, joinFields(have))
	return ""
}

func (d *decoder) path(v *yaml.Node, what string) (string, pattern) {
	text, ok := d.text(v, what)
	if !ok {
		return "", pattern{}
	}
	p, err := parsePattern(text)
	if err == nil {
		err = p.compilable()
	}
	if err != nil {
		d.wrong(v, what, text, err)
	}
	return text, p
}

func (d *decoder) access(n *yaml.Node, field string) Access {
	var set Access
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.errorf(n, "write at least one of "+joinFields(accessWords[:]), "%s is empty", field)
	}
	d.list(n, field, func(v *yaml.Node) {
		word, ok := d.text(v, "an access word")
		if !ok {
			return
		}
		bit, fix, ok := ParseAccess(word)
		switch {
		case !ok:
			d.errorf(v, fix, "unknown access word %q", word)
		case set&bit != 0:
			d.errorf(v, "remove one of them", "access word %q is given twice", word)
		}
		set |= bit
	})
	return set
}
