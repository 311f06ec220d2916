// SPDX-License-Identifier: Apache-2.0

// Command gendocs writes docs/policy.schema.json and docs/policy-reference.md
// from the types, comments, limits and presets of package policy. Run it from
// the root of the module: go run ./policy/internal/gendocs
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run() error {
	outputs, err := generate()
	if err != nil {
		return err
	}
	for path, content := range outputs {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("write documentation: %w", err)
		}
	}
	return nil
}

// generate returns what the generated files should contain, by their paths from
// the root of the module, which must be the working directory.
func generate() (map[string][]byte, error) {
	schema, err := buildSchema()
	if err != nil {
		return nil, err
	}
	text, err := encodeSchema(schema)
	if err != nil {
		return nil, err
	}
	reference, err := buildReference(schema)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"docs/policy.schema.json": text, "docs/policy-reference.md": reference}, nil
}
