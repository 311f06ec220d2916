// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v3"
)

// laterFields are fields of the document format that this build does not enforce.
var laterFields = [...]string{"tools", "requests"}

func (d *decoder) agentSpec(n *yaml.Node) AgentPolicySpec {
	var spec AgentPolicySpec
	if d.preset {
		d.object(n, "spec", []string{"capabilities", "files", "environment"}, func(key string, v *yaml.Node) {
			d.sharedField(key, v, &spec)
		})
		return spec
	}
	known := []string{"subject", "mode", "presets", "capabilities", "files", "network", "environment"}
	seen := d.object(d.withoutLater(n), "spec", known, func(key string, v *yaml.Node) {
		d.sharedField(key, v, &spec)
	})
	if n.Kind == yaml.MappingNode {
		d.require(n, seen, "subject", "write subject: {spiffeID: ID}")
	}
	return spec
}

func (d *decoder) sharedField(key string, v *yaml.Node, spec *AgentPolicySpec) {
	switch key {
	case "subject":
		spec.Subject = d.subject(v)
	case "mode":
		spec.Mode = Mode(d.word(v, "mode", string(Enforce), string(Audit)))
	case "presets":
		spec.Presets = d.presets(v)
	case "capabilities":
		spec.Capabilities = d.capabilities(v)
	case "files":
		spec.Files = d.fileLines(v)
	case "network":
		spec.Network = d.networkLines(v, false)
	case "environment":
		spec.Environment = d.environment(v)
	}
}

// withoutLater reports the fields of a later release and returns the mapping
// without them.
func (d *decoder) withoutLater(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	rest := *n
	rest.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		later := false
		for _, f := range laterFields {
			later = later || key.Value == f
		}
		if later {
			d.errorf(key, "remove "+key.Value+": without it the policy can be applied, and nothing more is allowed", "spec.%s is not supported by this build", key.Value)
			continue
		}
		rest.Content = append(rest.Content, key, n.Content[i+1])
	}
	return &rest
}

func (d *decoder) guardrailSpec(n *yaml.Node) GuardrailSpec {
	var spec GuardrailSpec
	seen := d.object(n, "spec", []string{"subjects", "files", "network"}, func(key string, v *yaml.Node) {
		switch key {
		case "subjects":
			spec.Subjects = d.subjects(v)
		case "files":
			spec.Files = d.fileLines(v)
		case "network":
			spec.Network = d.networkLines(v, true)
		}
	})
	for i := range spec.Files {
		if spec.Files[i].Allow != 0 {
			d.errorAt(spec.Files[i].Pos, "write deny, or move the line into an AgentPolicy", "a Guardrail can't allow")
		}
	}
	if n.Kind == yaml.MappingNode {
		d.require(n, seen, "subjects", `write subjects: ["spiffe://local/*"]`)
	}
	return spec
}

func (d *decoder) subject(n *yaml.Node) Subject {
	var s Subject
	seen := d.object(n, "subject", []string{"spiffeID"}, func(_ string, v *yaml.Node) {
		s.SPIFFEID = d.subjectID(v)
	})
	if n.Kind == yaml.MappingNode {
		d.require(n, seen, "spiffeID", "write subject: {spiffeID: ID}")
	}
	return s
}

func (d *decoder) subjectID(v *yaml.Node) string {
	text, ok := d.text(v, "a subject")
	if !ok {
		return ""
	}
	if d.builtin && text == Everyone {
		return text
	}
	id, err := ParseSubject(text)
	if err != nil {
		d.wrong(v, "subject", text, err)
	}
	return id
}

// wrong reports a value whose error has the form "what is wrong: what would be
// right".
func (d *decoder) wrong(n *yaml.Node, what, text string, err error) {
	message, fix := cutFix(err.Error())
	d.errorf(n, fix, "%s %q can't be used: %s", what, shorten(text, maxQuoted), message)
}

// cutFix splits at the first ": " that is not inside quotes, where it may be part
// of what the user wrote.
func cutFix(text string) (message, fix string) {
	quoted := false
	for i := 0; i+1 < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && text[i:i+2] == ": ":
			return text[:i], text[i+2:]
		}
	}
	return text, "correct it"
}

func (d *decoder) subjects(n *yaml.Node) []string {
	var subjects []string
	seen := map[string]bool{}
	d.list(n, "subjects", func(v *yaml.Node) {
		id := d.subjectID(v)
		if id == "" {
			return
		}
		if seen[id] {
			d.errorf(v, "remove one of them", "subject %q is given twice", id)
		}
		seen[id] = true
		subjects = append(subjects, id)
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.errorf(n, `write subjects: ["spiffe://local/*"]`, "the Guardrail is about nobody")
	}
	return subjects
}

func (d *decoder) presets(n *yaml.Node) []PresetUse {
	var uses []PresetUse
	seen := map[string]bool{}
	d.list(n, "presets", func(v *yaml.Node) {
		name := d.word(v, "preset", PresetNames()...)
		if name == "" {
			return
		}
		if seen[name] {
			d.errorf(v, "remove one of them", "preset %q is named twice", name)
		}
		seen[name] = true
		uses = append(uses, PresetUse{Name: name, Pos: d.pos(v)})
	})
	return uses
}

func (d *decoder) capabilities(n *yaml.Node) (set Capabilities) {
	d.list(n, "capabilities", func(v *yaml.Node) {
		word, ok := d.text(v, "a capability")
		if !ok {
			return
		}
		c, problem, fix := ParseCapability(word)
		switch {
		case c == 0:
			d.errorf(v, fix, "capability %q %s", word, problem)
		case set&c != 0:
			d.errorf(v, "remove one of them", "capability %s is given twice", c)
		}
		set |= c
	})
	return set
}
