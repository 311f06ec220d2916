// SPDX-License-Identifier: Apache-2.0

package main

import (
	"embed"
	"fmt"

	"github.com/spf13/cobra"
)

// schemaFile is docs/policy.schema.json, which the compiler cannot reach there;
// a test holds the two together.
//
//go:embed policy.schema.json
var schemaFile embed.FS

func policySchemaCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy documents, for editors",
		Args:  wants(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			text, err := schemaFile.ReadFile("policy.schema.json")
			if err != nil {
				return fmt.Errorf("read the schema: %w", err)
			}
			_, err = env.stdout.Write(text)
			return err
		},
	}
}
