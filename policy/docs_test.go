// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"

	"bailiff.dev/bailiff/policy"
)

var update = flag.Bool("update", false, "write docs/policy.schema.json and docs/policy-reference.md instead of comparing them")

// TestDocs holds the schema and the reference to what the types, comments, limits
// and presets of the package say.
func TestDocs(t *testing.T) {
	schema, err := buildSchema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := encodeSchema(schema)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := buildReference(schema)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"../docs/policy.schema.json": text, "../docs/policy-reference.md": reference} {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: go test ./policy -run TestDocs -update", name)
		}
	}
}

func TestSchemaKnowsEveryField(t *testing.T) {
	schema, err := buildSchema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := encodeSchema(schema)
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct {
		OneOf []struct{ Title string }
		Defs  map[string]struct {
			Properties           map[string]any
			AdditionalProperties *bool
		} `json:"$defs"`
	}
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	if len(decoded.OneOf) != 2 || decoded.OneOf[0].Title != "AgentPolicy" || decoded.OneOf[1].Title != "Guardrail" {
		t.Errorf("alternatives are %+v", decoded.OneOf)
	}
	for def, fields := range map[string]int{"AgentPolicySpec": 7, "GuardrailSpec": 3, "FileLine": 3, "NetworkLine": 9, "Environ": 2, "Subject": 1, "Metadata": 1} {
		d := decoded.Defs[def]
		if len(d.Properties) != fields {
			t.Errorf("%s has the fields %v, want %d", def, d.Properties, fields)
		}
		if d.AdditionalProperties == nil || *d.AdditionalProperties {
			t.Errorf("%s allows unknown fields", def)
		}
	}
}

// TestReferenceExamplesParse checks every policy in the reference.
func TestReferenceExamplesParse(t *testing.T) {
	text, err := os.ReadFile("../docs/policy-reference.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 6 {
		t.Fatalf("found %d examples", len(blocks))
	}
	for i, block := range blocks {
		docs, ps := policy.Parse(fmt.Sprintf("example %d", i+1), block[1])
		if len(docs) != 1 || len(ps) > 0 {
			t.Errorf("%d documents, %v", len(docs), ps)
		}
	}
}
