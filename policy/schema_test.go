// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/invopop/jsonschema"

	"bailiff.dev/bailiff/policy"
)

// buildSchema reflects the document types. The two kinds of document are the
// alternatives of the top level.
func buildSchema() (*jsonschema.Schema, error) {
	r := &jsonschema.Reflector{Mapper: mapType, Anonymous: true}
	if err := r.AddGoComments("bailiff.dev/bailiff/policy", ".", jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	for key, text := range r.CommentMap {
		r.CommentMap[key] = strings.Join(strings.Fields(text), " ")
	}
	root := &jsonschema.Schema{
		Version:     jsonschema.Version,
		ID:          "https://bailiff.dev/schema/v1alpha1/policy.schema.json",
		Title:       "Bailiff policy document",
		Description: "One document of a policy file: an AgentPolicy or a Guardrail.",
		Definitions: jsonschema.Definitions{},
	}
	for _, kind := range []struct {
		kind policy.Kind
		spec any
	}{
		{policy.KindAgentPolicy, policy.AgentPolicySpec{}},
		{policy.KindGuardrail, policy.GuardrailSpec{}},
	} {
		root.OneOf = append(root.OneOf, documentSchema(r, root.Definitions, kind.kind, kind.spec))
	}
	refine(root.Definitions)
	return root, nil
}

func documentSchema(r *jsonschema.Reflector, definitions jsonschema.Definitions, kind policy.Kind, spec any) *jsonschema.Schema {
	for _, v := range []any{policy.Metadata{}, spec} {
		for name, def := range r.Reflect(v).Definitions {
			definitions[name] = def
		}
	}
	s := closedObject()
	s.Title = string(kind)
	s.Properties.Set("apiVersion", &jsonschema.Schema{Type: "string", Const: policy.APIVersion})
	s.Properties.Set("kind", &jsonschema.Schema{Type: "string", Const: string(kind)})
	s.Properties.Set("metadata", &jsonschema.Schema{Ref: "#/$defs/Metadata"})
	s.Properties.Set("spec", &jsonschema.Schema{Ref: "#/$defs/" + reflect.TypeOf(spec).Name()})
	s.Required = []string{"apiVersion", "kind", "metadata", "spec"}
	return s
}

func closedObject() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
}

// mapType gives the schema of types that are not written as Go holds them.
func mapType(t reflect.Type) *jsonschema.Schema {
	word := &jsonschema.Schema{Type: "string"}
	switch t {
	case reflect.TypeFor[policy.Access]():
		one := uint64(1)
		word.Enum = anys((policy.Read | policy.Write | policy.Create | policy.Delete | policy.Execute).Words())
		return &jsonschema.Schema{Type: "array", Items: word, MinItems: &one, UniqueItems: true}
	case reflect.TypeFor[policy.Capabilities]():
		word.Enum = anys(policy.CapabilityNames())
		item := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{word, {Type: "string", Pattern: capabilityPattern()}}}
		return &jsonschema.Schema{Type: "array", Items: item}
	case reflect.TypeFor[policy.Mode]():
		word.Enum = []any{policy.Enforce, policy.Audit}
	case reflect.TypeFor[policy.PresetUse]():
		word.Enum = anys(policy.PresetNames())
	case reflect.TypeFor[policy.Action]():
		word.Enum = []any{policy.ActionConnect, policy.ActionListen}
	case reflect.TypeFor[policy.Protocol]():
		word.Enum = []any{policy.ProtocolTCP, policy.ProtocolUDP, policy.ProtocolAny}
	case reflect.TypeFor[policy.PortSpan]():
		word.Pattern = `^[0-9]{1,5}(-[0-9]{1,5})?$`
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: "0", Maximum: "65535"}, word,
		}}
	default:
		return nil
	}
	return word
}

// capabilityPattern matches the names in any case, with or without CAP_.
func capabilityPattern() string {
	either := func(name string) string {
		var b strings.Builder
		for _, r := range name {
			if r == '_' {
				b.WriteRune(r)
				continue
			}
			fmt.Fprintf(&b, "[%c%c]", r, unicode.ToLower(r))
		}
		return b.String()
	}
	var names []string
	for _, name := range policy.CapabilityNames() {
		names = append(names, either(name))
	}
	return "^(" + either("CAP_") + ")?(" + strings.Join(names, "|") + ")$"
}

func anys(words []string) []any {
	var out []any
	for _, w := range words {
		out = append(out, w)
	}
	return out
}

// refine adds what Go types can't say, and calls fields by the names they have in
// a document.
func refine(definitions jsonschema.Definitions) {
	for _, def := range definitions {
		for p := def.Properties.Oldest(); p != nil; p = p.Next() {
			first, rest, _ := strings.Cut(p.Value.Description, " ")
			if strings.EqualFold(first, p.Key) {
				p.Value.Description = p.Key + " " + rest
			}
		}
	}
	field := func(def, name string) *jsonschema.Schema {
		s, _ := definitions[def].Properties.Get(name)
		return s
	}
	one, maxName, maxPath := uint64(1), uint64(policy.MaxName), uint64(policy.MaxPath)
	name := field("Metadata", "name")
	name.Pattern, name.MaxLength = `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`, &maxName
	path := field("FileLine", "path")
	path.Pattern, path.MaxLength = `^/`, &maxPath
	field("NetworkLine", "to").Enum = []any{"self"}
	field("NetworkLine", "unix").Pattern = `^[/@]`
	field("NetworkLine", "ports").MinItems = &one
	field("GuardrailSpec", "subjects").MinItems = &one
	for _, lines := range []string{"files", "network"} {
		field("GuardrailSpec", lines).Items.Not = &jsonschema.Schema{Required: []string{"allow"}}
	}
	for _, line := range []string{"FileLine", "NetworkLine"} {
		definitions[line].OneOf = []*jsonschema.Schema{{Required: []string{"allow"}}, {Required: []string{"deny"}}}
	}
}

// encodeSchema returns the schema as indented JSON that ends in a newline.
func encodeSchema(s *jsonschema.Schema) ([]byte, error) {
	compact, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
