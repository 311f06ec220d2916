// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/invopop/jsonschema"

	"bailiff.dev/bailiff/policy"
)

// limit is a row of the table of limits.
type limit struct {
	What  string
	Value int
}

func limits() []limit {
	return []limit{
		{"bytes of a file", policy.MaxFileSize},
		{"documents in a file", policy.MaxDocuments},
		{"rules of a document", policy.MaxRules},
		{"bytes of `metadata.name`", policy.MaxName},
		{"bytes of a SPIFFE ID", policy.MaxSPIFFEID},
		{"bytes of a path", policy.MaxPath},
		{"components of a path", policy.MaxDepth},
		{"bytes of a component", policy.MaxComponent},
		{"bytes of a Unix socket's path or abstract name", policy.MaxAbstract},
		{"entries of a `ports` list", policy.MaxPorts},
		{"variables in `drop`, and in `set`", policy.MaxVariables},
		{"states of an agent's compiled path rules", policy.MaxStates},
		{"transitions between them", policy.MaxEdges},
		{"nodes for all wildcards within components", policy.MaxGlobNodes},
		{"network prefixes of an agent", policy.MaxPrefixes},
		{"port ranges of an agent", policy.MaxPortRanges},
	}
}

// buildReference fills in the tables of the reference from the schema, the
// limits and the presets.
func buildReference(schema *jsonschema.Schema) ([]byte, error) {
	t, err := template.New("reference.md.tmpl").Funcs(template.FuncMap{
		"fields": func(def string) (string, error) { return fieldTable(schema.Definitions, def) },
		"about": func(def, words string) (string, error) {
			about, ok := strings.CutPrefix(schema.Definitions[def].Description, def+" ")
			if !ok {
				return "", fmt.Errorf("the comment of %s does not start with its name", def)
			}
			return words + " " + about, nil
		},
		"limits":       limits,
		"presets":      presets,
		"capabilities": policy.CapabilityTable,
	}).ParseFiles("testdata/reference.md.tmpl")
	if err != nil {
		return nil, fmt.Errorf("parse reference template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return nil, fmt.Errorf("fill in reference: %w", err)
	}
	return b.Bytes(), nil
}

// fieldTable renders the fields of a definition as a table.
func fieldTable(definitions jsonschema.Definitions, name string) (string, error) {
	def, ok := definitions[name]
	if !ok {
		return "", fmt.Errorf("the schema defines no %q", name)
	}
	var b strings.Builder
	b.WriteString("| field | form | meaning |\n|---|---|---|\n")
	for p := def.Properties.Oldest(); p != nil; p = p.Next() {
		required := ""
		if slices.Contains(def.Required, p.Key) {
			required = ", required"
		}
		if p.Value.Description == "" && p.Value.Ref == "" {
			return "", fmt.Errorf("%s.%s has no comment", name, p.Key)
		}
		fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", p.Key, form(p.Value), required, p.Value.Description)
	}
	return b.String(), nil
}

// form says in a few words how a value is written.
func form(s *jsonschema.Schema) string {
	switch {
	case s.Ref != "":
		return "fields below"
	case len(s.Enum) > 0:
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprintf("`%v`", e))
		}
		return strings.Join(words, ", ")
	case len(s.AnyOf) > 0:
		return form(s.AnyOf[0])
	case len(s.OneOf) > 0:
		return "number or range"
	case s.Type == "array":
		return "list of " + form(s.Items)
	case s.Type == "object":
		return "name: text"
	case s.Type == "string":
		return "text"
	}
	return s.Type
}

// presetInfo is a row of the table of presets.
type presetInfo struct {
	Name, About string
}

// presets describes each preset by the comment on top of its text.
func presets() ([]presetInfo, error) {
	var out []presetInfo
	for _, name := range policy.PresetNames() {
		text, err := policy.Preset(name)
		if err != nil {
			return nil, err
		}
		var about []string
		for line := range strings.Lines(text) {
			comment, ok := strings.CutPrefix(line, "# ")
			if !ok {
				break
			}
			about = append(about, strings.TrimSpace(comment))
		}
		out = append(out, presetInfo{name, strings.Join(about, " ")})
	}
	return out, nil
}
