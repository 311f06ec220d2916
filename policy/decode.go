// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

func (d *decoder) pos(n *yaml.Node) Position {
	return Position{File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

func (d *decoder) errorf(n *yaml.Node, fix, format string, args ...any) {
	d.errorAt(d.pos(n), fix, format, args...)
}

// errorAt repeats what the file says only in part: a word may be as long as the
// file.
func (d *decoder) errorAt(pos Position, fix, format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = shorten(s, 4*maxQuoted)
		}
	}
	d.errors++
	d.problems = append(d.problems, Problem{
		Severity: Error, Pos: pos, Message: fmt.Sprintf(format, args...), Fix: shorten(fix, 4*MaxPath),
	})
}

func (d *decoder) noteAt(severity Severity, pos Position, fix, format string, args ...any) {
	d.problems = append(d.problems, Problem{Severity: severity, Pos: pos, Message: fmt.Sprintf(format, args...), Fix: fix})
}

// describe names what a node is, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode:
		value := shorten(n.Value, maxQuoted)
		switch n.ShortTag() {
		case "!!null":
			return "nothing"
		case "!!int", "!!float":
			return "the number " + escape(value)
		case "!!bool":
			return "the truth value " + escape(value)
		case "!!str":
			return fmt.Sprintf("the text %q", value)
		}
		return fmt.Sprintf("%q of type %s", value, escape(shorten(n.ShortTag(), maxQuoted)))
	}
	return "nothing"
}

// object calls each with every known field of a mapping that is there, once, and
// reports unknown and repeated ones. It returns the fields seen.
func (d *decoder) object(n *yaml.Node, what string, known []string, each func(key string, v *yaml.Node)) (seen []string) {
	if n.Kind != yaml.MappingNode {
		if n.Kind != yaml.AliasNode {
			d.errorf(n, "write its fields: "+joinFields(known), "%s must be a mapping, not %s", what, describe(n))
		}
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			d.errorf(k, "known here: "+joinFields(known), "a field's name must be a word, not %s", describe(k))
		case !slices.Contains(known, k.Value):
			d.errorf(k, suggest(k.Value, known), "unknown field %q in %s", k.Value, what)
		case slices.Contains(seen, k.Value):
			d.errorf(k, "remove one of them", "field %q is given twice in %s", k.Value, what)
		default:
			seen = append(seen, k.Value)
			each(k.Value, v)
		}
	}
	return seen
}

func joinFields(fields []string) string {
	s := ""
	for i, f := range fields {
		if i > 0 {
			s += ", "
		}
		s += f
	}
	return s
}

func (d *decoder) require(n *yaml.Node, seen []string, field, fix string) {
	if !slices.Contains(seen, field) {
		d.errorf(n, fix, "%s is missing", field)
	}
}

// list calls each with every item of a sequence.
func (d *decoder) list(n *yaml.Node, what string, each func(v *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		if n.Kind != yaml.AliasNode {
			d.errorf(n, "write it as [ITEM, ...]", "%s must be a list, not %s", what, describe(n))
		}
		return
	}
	for _, v := range n.Content {
		each(v)
	}
}

// text returns a scalar that YAML takes for a string.
func (d *decoder) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n.Value, true
	}
	if n.Kind == yaml.AliasNode {
		return "", false // reported by forbidAnchors
	}
	fix := "write it as text"
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		fix = fmt.Sprintf("put it in quotes: %q", n.Value)
	}
	d.errorf(n, fix, "%s must be text, not %s", what, describe(n))
	return "", false
}

// word returns a text that is one of the known words.
func (d *decoder) word(n *yaml.Node, what string, known ...string) string {
	s, ok := d.text(n, what)
	if !ok {
		return ""
	}
	if !slices.Contains(known, s) {
		d.errorf(n, suggest(s, known), "unknown %s %q", what, s)
		return ""
	}
	return s
}

// forbidAnchors reports anchors, aliases and tags: a policy says what it says
// where it says it, and an alias can multiply a small file into a huge one.
func (d *decoder) forbidAnchors(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		d.errorf(n, "write the value out", "YAML aliases are not allowed in a policy")
		return
	}
	if n.Anchor != "" {
		d.errorf(n, "remove it and write the value out where it is needed", "YAML anchors are not allowed in a policy")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.errorf(n, "remove it", "YAML tags such as %q are not allowed in a policy", n.Tag)
	}
	for _, c := range n.Content {
		d.forbidAnchors(c)
	}
}
